//! The links that the policy permits and refuses.

use super::Requested::{Plaintext, Tls, Unspecified};
use super::*;

fn peer<'a>(host: &'a str, user: &'a str, password: &'a str, requested: Requested) -> Peer<'a> {
    Peer {
        service: &POSTGRES,
        host,
        user,
        password: password.as_bytes(),
        requested,
    }
}

fn link(ca: Option<&str>, allow_plaintext: bool) -> Endpoint {
    Endpoint::new(
        "postgres://canary".into(),
        ca.map(PathBuf::from),
        allow_plaintext,
    )
}

#[test]
fn links_to_other_machines_are_encrypted_unless_a_setting_permits_plaintext() {
    let (here, there) = ("127.0.0.1", "db.example");
    for (host, requested, ca, allowed, right) in [
        (there, Unspecified, None, false, Ok(Encryption::Tls)),
        (there, Unspecified, None, true, Ok(Encryption::Tls)),
        (there, Tls, Some("ca.pem"), false, Ok(Encryption::Tls)),
        (
            there,
            Plaintext,
            None,
            false,
            Err("plaintext; use sslmode=require"),
        ),
        (there, Plaintext, None, true, Ok(Encryption::Plaintext)),
        (
            there,
            Plaintext,
            Some("ca.pem"),
            true,
            Err("DISPATCH_DATABASE_CA is set"),
        ),
        (here, Unspecified, None, false, Ok(Encryption::Plaintext)),
        (
            here,
            Unspecified,
            Some("ca.pem"),
            false,
            Ok(Encryption::Tls),
        ),
        (here, Tls, None, false, Ok(Encryption::Tls)),
        (here, Plaintext, None, false, Ok(Encryption::Plaintext)),
        (
            here,
            Plaintext,
            Some("ca.pem"),
            false,
            Err("DISPATCH_DATABASE_CA is set"),
        ),
    ] {
        let judged = link(ca, allowed).judge(&peer(host, "worker", "of its own", requested));
        match (judged, right) {
            (Ok(found), Ok(right)) => {
                assert_eq!(found, right, "{host} {requested:?} {ca:?} {allowed}")
            }
            (Err(fault), Err(part)) => assert!(fault.to_string().contains(part), "{fault}"),
            (judged, right) => {
                panic!("{host} {requested:?} {ca:?} {allowed}: {judged:?}, expected {right:?}")
            }
        }
    }
}

#[test]
fn default_passwords_are_refused_for_other_machines_whatever_the_settings_permit() {
    for (user, password) in [
        ("guest", "guest"),
        ("guest", "of its own"),
        ("postgres", "postgres"),
        ("dispatch", "Password"),
        ("dispatch", "dispatch"),
        ("Dispatch", "dispatch"),
        ("dispatch", "changeme"),
        ("dispatch", "SECRET"),
    ] {
        for requested in [Tls, Plaintext] {
            let fault = link(None, true)
                .judge(&peer("db.example", user, password, requested))
                .unwrap_err();
            assert!(matches!(fault, LinkFault::DefaultPassword { .. }), "{user}");
            assert!(
                fault.to_string().contains("of your own") && !fault.to_string().contains(password),
                "{fault}"
            );
            assert!(
                link(None, false)
                    .judge(&peer("::1", user, password, requested))
                    .is_ok()
            );
        }
    }
    for (user, password) in [
        ("postgres", "kT7v"),
        ("dispatch", ""),
        ("dispatch", "passwords"),
    ] {
        assert!(
            link(None, false)
                .judge(&peer("db.example", user, password, Tls))
                .is_ok(),
            "{user}"
        );
    }
}

#[test]
fn this_machine_is_distinguished_from_others() {
    for here in [
        "localhost",
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "[::1]",
        "/run/postgresql",
    ] {
        assert!(is_this_machine(here), "{here}");
    }
    for there in [
        "localhost.example",
        "127.0.0.1.example",
        "10.0.0.1",
        "0.0.0.0",
        "::ffff:127.0.0.1",
        "",
        "rabbitmq",
    ] {
        assert!(!is_this_machine(there), "{there}");
    }
}

#[test]
fn the_fault_of_a_file_without_authorities_states_what_is_wrong() {
    let folder = std::env::temp_dir().join(format!("authorities-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&folder).unwrap();
    for (name, text, part) in [
        ("missing", None, "cannot be read"),
        ("empty", Some(""), "holds no certificate"),
        (
            "cut",
            Some("-----BEGIN CERTIFICATE-----\nAAAA"),
            "is not PEM",
        ),
        (
            "bad",
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "certificate that cannot be parsed",
        ),
    ] {
        let path = folder.join(name);
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let fault = Endpoint::new("x".into(), Some(path), false)
            .tls(&RABBITMQ)
            .unwrap_err()
            .to_string();
        assert!(
            fault.contains(part)
                && fault.contains("DISPATCH_AMQP_CA")
                && fault.contains("use a PEM file"),
            "{fault}"
        );
    }
    std::fs::remove_dir_all(folder).unwrap();
    assert!(!format!("{:?}", link(None, false)).contains("canary"));
}
