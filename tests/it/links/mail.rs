//! The way to the mail server, as the program itself takes it: verified before anybody signs in.

use std::path::Path;

use super::SOON;
use super::peers::{Authority, GOOD, Identity, OVER, Peer, Protocol, Seen};
use crate::support::{Said, TestWorld, acme};

/// Sends a test message; what the mail server sees of it, and what is said.
async fn mail(world: &TestWorld, protocol: Protocol, identity: Option<Identity>, ca: Option<&Path>) -> (Seen, Said) {
    let peer = Peer::new(protocol, identity).await;
    let (scheme, query) = if protocol == Protocol::Smtps { ("smtps", "") } else { ("smtp", "?tls=required") };
    let url = format!("{scheme}://{}@localhost:{}{query}", acme::MAIL_USER, peer.port);
    let arguments = ["destinations", "test", "--organization", "aside", "mail"];
    let mut command = world.dispatch(&arguments).env("DISPATCH_SMTP_URL", &url);
    if let Some(ca) = ca {
        // Whom the system trusts.
        command = command.env("SSL_CERT_FILE", &ca.display().to_string());
    }
    let said = command.said();
    let serve = async { tokio::time::timeout(SOON, peer.serve()).await };
    let (seen, said) = tokio::join!(serve, said);
    (seen.unwrap_or_else(|_| panic!("nobody has come: {said:?}")), said)
}

#[tokio::test]
async fn a_mail_server_that_cannot_be_verified_is_told_no_password() {
    let world = TestWorld::acme().await;
    let (own, other) = (Authority::new(), Authority::new());
    let authority = own.file(world.folder());
    let known = Some(authority.as_path());
    let right = own.issue(&["localhost"], GOOD);
    for protocol in [Protocol::Smtps, Protocol::Smtp] {
        let plaintext = if protocol == Protocol::Smtps { "InvalidContentType" } else { "lacks STARTTLS" };
        for (what, identity, trusted, part) in [
            ("plaintext", None, known, plaintext),
            ("vouched for by somebody else", Some(other.issue(&["localhost"], GOOD)), known, "UnknownIssuer"),
            ("vouched for by nobody whom the system knows", Some(right.clone()), None, "UnknownIssuer"),
            ("of another name", Some(own.issue(&["other.example"], GOOD)), known, "not valid for name"),
            ("expired", Some(own.issue(&["localhost"], OVER)), known, "expired"),
        ] {
            let (seen, said) = mail(&world, protocol, identity, trusted).await;
            assert!(said.code == Some(1) && said.stderr.contains(part), "{protocol:?}, {what}: {said:?}");
            match seen {
                Seen::Plaintext(bytes) => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    assert!(!text.contains("AUTH") && !text.contains(acme::MAIL_USER), "{protocol:?}: {text}");
                }
                seen => assert_eq!(seen, Seen::Refused, "{protocol:?}, {what}"),
            }
        }
        // It hangs up once it is trusted.
        let (seen, said) = mail(&world, protocol, Some(right.clone()), known).await;
        assert_eq!((seen, said.code), (Seen::Trusted, Some(1)), "{protocol:?}: {}", said.stderr);
    }
}

/// The server is the right one, and says nothing under TLS: all replies are somebody else's, who cannot break TLS.
#[tokio::test]
async fn what_was_said_in_plaintext_is_taken_for_no_reply_under_tls() {
    let world = TestWorld::acme().await;
    let own = Authority::new();
    let authority = own.file(world.folder());
    let right = own.issue(&["localhost"], GOOD);
    let (seen, said) = mail(&world, Protocol::InjectedSmtp, Some(right), Some(&authority)).await;
    assert_eq!((seen, said.code), (Seen::Refused, Some(1)), "{said:?}");
    assert!(said.stderr.contains("bytes that answer nothing") && said.stderr.contains("smtps://"), "{}", said.stderr);
}
