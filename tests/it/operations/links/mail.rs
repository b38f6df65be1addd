//! The connection to the mail server, as the program opens it: verified before the sign-in.

use std::path::Path;

use super::SOON;
use super::peers::{Authority, GOOD, Identity, OVER, Peer, Protocol, Seen};
use crate::support::{Said, TestWorld, acme};

/// Runs a test delivery; returns what the mail server sees and the output of the command.
async fn mail(
    world: &TestWorld,
    protocol: Protocol,
    identity: Option<Identity>,
    ca: Option<&Path>,
) -> (Seen, Said) {
    let peer = Peer::new(protocol, identity).await;
    let (scheme, query) = if protocol == Protocol::Smtps {
        ("smtps", "")
    } else {
        ("smtp", "?tls=required")
    };
    let url = format!(
        "{scheme}://{}@localhost:{}{query}",
        acme::MAIL_USER,
        peer.port
    );
    let arguments = ["destinations", "test", "--organization", "aside", "mail"];
    let mut command = world.dispatch(&arguments).env("DISPATCH_SMTP_URL", &url);
    if let Some(ca) = ca {
        // Replaces the certificate authorities that the system trusts.
        command = command.env("SSL_CERT_FILE", &ca.display().to_string());
    }
    let said = command.said();
    let serve = async { tokio::time::timeout(SOON, peer.serve()).await };
    let (seen, said) = tokio::join!(serve, said);
    (
        seen.unwrap_or_else(|_| panic!("no connection: {said:?}")),
        said,
    )
}

#[tokio::test]
async fn no_password_is_sent_to_a_mail_server_that_cannot_be_verified() {
    let world = TestWorld::acme().await;
    let (own, other) = (Authority::new(), Authority::new());
    let authority = own.file(world.folder());
    let known = Some(authority.as_path());
    let right = own.issue(&["localhost"], GOOD);
    for protocol in [Protocol::Smtps, Protocol::Smtp] {
        let plaintext = if protocol == Protocol::Smtps {
            "InvalidContentType"
        } else {
            "lacks STARTTLS"
        };
        for (what, identity, trusted, part) in [
            ("plaintext", None, known, plaintext),
            (
                "signed by another authority",
                Some(other.issue(&["localhost"], GOOD)),
                known,
                "UnknownIssuer",
            ),
            (
                "signed by an authority that the system does not trust",
                Some(right.clone()),
                None,
                "UnknownIssuer",
            ),
            (
                "with another name",
                Some(own.issue(&["other.example"], GOOD)),
                known,
                "not valid for name",
            ),
            (
                "expired",
                Some(own.issue(&["localhost"], OVER)),
                known,
                "expired",
            ),
        ] {
            let (seen, said) = mail(&world, protocol, identity, trusted).await;
            assert!(
                said.code == Some(1) && said.stderr.contains(part),
                "{protocol:?}, {what}: {said:?}"
            );
            match seen {
                Seen::Plaintext(bytes) => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    assert!(
                        !text.contains("AUTH") && !text.contains(acme::MAIL_USER),
                        "{protocol:?}: {text}"
                    );
                }
                seen => assert_eq!(seen, Seen::Refused, "{protocol:?}, {what}"),
            }
        }
        // The server closes the connection once it is trusted.
        let (seen, said) = mail(&world, protocol, Some(right.clone()), known).await;
        assert_eq!(
            (seen, said.code),
            (Seen::Trusted, Some(1)),
            "{protocol:?}: {}",
            said.stderr
        );
    }
}

/// The server is genuine and sends nothing under TLS: all replies come from an attacker on the
/// network who cannot break TLS.
#[tokio::test]
async fn replies_injected_in_plaintext_are_not_accepted_under_tls() {
    let world = TestWorld::acme().await;
    let own = Authority::new();
    let authority = own.file(world.folder());
    let right = own.issue(&["localhost"], GOOD);
    let (seen, said) = mail(
        &world,
        Protocol::InjectedSmtp,
        Some(right),
        Some(&authority),
    )
    .await;
    assert_eq!((seen, said.code), (Seen::Refused, Some(1)), "{said:?}");
    assert!(
        said.stderr.contains("unsolicited bytes") && said.stderr.contains("smtps://"),
        "{}",
        said.stderr
    );
}
