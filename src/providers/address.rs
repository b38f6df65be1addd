//! The rules for addresses that may be called. They prevent requests to internal addresses (SSRF).
//!
//! A destination's address is untrusted text, and so are the addresses that its name resolves to.
//! Only addresses of the public internet are called: none of the IANA registries of
//! special-purpose addresses (<https://www.iana.org/assignments/iana-ipv4-special-registry>,
//! `iana-ipv6-special-registry`), and none of the metadata services of clouds. A literal address
//! is checked in the URL. A name is checked by `Resolver`, which the HTTP driver itself uses, so
//! that the connection goes to the checked address even if the name resolves to another one a
//! moment later.
//!
//! **Invariant:** a request goes only to an address that was checked for the connection it uses.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::{fmt, io};

use futures_util::future::{BoxFuture, FutureExt};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The reason why an address may not be called. `Display` states what is expected instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// This machine.
    Loopback,
    /// A private network: RFC 1918, unique-local (RFC 4193), site-local (RFC 3879).
    Private,
    /// A link-local network: RFC 3927, RFC 4291.
    LinkLocal,
    /// A cloud's metadata service, which gives a machine its credentials.
    Metadata,
    /// A carrier's shared address space: RFC 6598.
    Shared,
    /// Multicast and broadcast.
    Many,
    /// Documentation (RFC 5737, RFC 3849, RFC 9637) and benchmarking (RFC 2544, RFC 5180).
    Example,
    /// An IPv4 address inside an IPv6 one, which is routed by the IPv4 address: mapped,
    /// compatible, NAT64 (RFC 6052, RFC 8215), 6to4 and Teredo.
    Embedded,
    /// Unassigned: "this network", protocol assignments, reserved for the future.
    Reserved,
}

impl Rule {
    /// Returns what is expected, and what the address is.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Loopback => {
                "expected an address of the public internet, got one of this machine (127.0.0.0/8, ::1)"
            }
            Self::Private => {
                "expected an address of the public internet, got a private one (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, \
                 fc00::/7)"
            }
            Self::LinkLocal => {
                "expected an address of the public internet, got a link-local one (169.254.0.0/16, fe80::/10)"
            }
            Self::Metadata => {
                "expected an address of the public internet, got a cloud's metadata service"
            }
            Self::Shared => {
                "expected an address of the public internet, got a carrier's shared one (100.64.0.0/10)"
            }
            Self::Many => {
                "expected the address of one machine, got a multicast or broadcast address"
            }
            Self::Example => {
                "expected an address of the public internet, got one for documentation or benchmarking"
            }
            Self::Embedded => {
                "expected an address of the public internet, got an IPv4 address inside an IPv6 one (mapped, NAT64, 6to4, \
                 Teredo); use the IPv4 address"
            }
            Self::Reserved => "expected an address of the public internet, got a reserved one",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Returns the rule that `address` breaks, if any. `allow_loopback` is the development setting.
#[must_use]
pub fn broken_rule(address: IpAddr, allow_loopback: bool) -> Option<Rule> {
    let rule = if METADATA.contains(&address) {
        Some(Rule::Metadata)
    } else {
        match address {
            IpAddr::V4(address) => rule_v4(address),
            IpAddr::V6(address) => rule_v6(address),
        }
    };
    rule.filter(|rule| !(allow_loopback && *rule == Rule::Loopback))
}

/// The metadata services of AWS, Azure, Google and most others; of AWS and Google over IPv6; of
/// Alibaba; and Azure's host, a public address that only its guests can reach.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

fn rule_v4(address: Ipv4Addr) -> Option<Rule> {
    Some(match address.octets() {
        [127, ..] => Rule::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Rule::Private,
        [169, 254, ..] => Rule::LinkLocal,
        [100, 64..=127, ..] => Rule::Shared,
        [224..=239, ..] | [255, 255, 255, 255] => Rule::Many,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [198, 18..=19, ..] => Rule::Example,
        [0, ..] | [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => Rule::Reserved,
        _ => return None,
    })
}

fn rule_v6(address: Ipv6Addr) -> Option<Rule> {
    if address == Ipv6Addr::LOCALHOST {
        return Some(Rule::Loopback);
    }
    Some(match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Rule::Reserved,
        // Compatible, mapped, and the translated form of RFC 2765.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Rule::Embedded,
        // NAT64; Teredo; 6to4. The latter two are withdrawn, so no server is reachable only
        // through them.
        [0x64, 0xff9b, ..] | [0x2001, 0, ..] | [0x2002, ..] => Rule::Embedded,
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Rule::Private,
        [0xfe80..=0xfebf, ..] => Rule::LinkLocal,
        [0xff00..=0xffff, ..] => Rule::Many,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] | [0x2001, 2, 0, ..] => Rule::Example,
        // Protocol assignments (2001::/23), and everything outside the one block of global unicast
        // addresses (2000::/3).
        [0x2001, 0..=0x1ff, ..] | [0..=0x1fff | 0x4000.., ..] => Rule::Reserved,
        _ => return None,
    })
}

/// A name that resolves to an address that may not be called.
#[derive(Debug, thiserror::Error)]
#[error("{name} resolves to {address}: {rule}")]
pub struct RefusedName {
    name: String,
    address: IpAddr,
    rule: Rule,
}

impl RefusedName {
    /// Returns the refused name among the causes of an error.
    #[must_use]
    pub fn in_chain<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }
}

/// A function that resolves a name to addresses. Their port is ignored.
pub(super) type Lookup =
    Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The resolver of the HTTP driver. Returns only addresses that may be called.
///
/// One address that may not be called refuses the whole name: a public service has no reason to
/// list an internal address, and the driver, which tries the addresses in turn, would connect to
/// it when the others do not answer.
pub(super) struct Resolver {
    allow_loopback: bool,
    lookup: Lookup,
}

impl Resolver {
    /// Creates a resolver that uses the system's.
    pub(super) fn of_system(allow_loopback: bool) -> Self {
        let ask = |name: String| {
            async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }.boxed()
        };
        Self::new(allow_loopback, Arc::new(ask))
    }

    pub(super) fn new(allow_loopback: bool, lookup: Lookup) -> Self {
        Self {
            allow_loopback,
            lookup,
        }
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (name, allow_loopback) = (name.as_str().to_owned(), self.allow_loopback);
        let found = (self.lookup)(name.clone());
        async move {
            let found = found.await?;
            for address in found.iter().map(SocketAddr::ip) {
                if let Some(rule) = broken_rule(address, allow_loopback) {
                    return Err(RefusedName {
                        name,
                        address,
                        rule,
                    }
                    .into());
                }
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(address: &str) -> Option<Rule> {
        broken_rule(address.parse().unwrap(), false)
    }

    /// Addresses of each range: its first, its last, or one inside.
    const RANGES: [(Rule, &str); 14] = [
        (Rule::Loopback, "127.0.0.0 127.255.255.255 ::1"),
        (
            Rule::Private,
            "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255",
        ),
        (
            Rule::Private,
            "fc00:: fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff fec0::1 feff::1",
        ),
        (
            Rule::LinkLocal,
            "169.254.0.0 169.254.255.255 fe80:: febf:ffff::",
        ),
        (
            Rule::Metadata,
            "169.254.169.254 fd00:ec2::254 fd20:ce::254 100.100.100.200 168.63.129.16",
        ),
        (Rule::Shared, "100.64.0.0 100.127.255.255"),
        (
            Rule::Many,
            "224.0.0.0 239.255.255.255 255.255.255.255 ff00:: ff02::1",
        ),
        (
            Rule::Example,
            "192.0.2.0 198.51.100.255 203.0.113.7 198.18.0.0 198.19.255.255",
        ),
        (
            Rule::Example,
            "2001:db8:: 2001:db8:ffff::1 3fff::1 3fff:fff::1 2001:2::1",
        ),
        (
            Rule::Embedded,
            "::ffff:8.8.8.8 ::ffff:127.0.0.1 ::8.8.8.8 ::ffff:0:10.0.0.1 ::2",
        ),
        (
            Rule::Embedded,
            "64:ff9b::8.8.8.8 64:ff9b::10.0.0.1 64:ff9b:1::1 64:ff9b:1:ffff::1",
        ),
        (
            Rule::Embedded,
            "2002:7f00:1:: 2002:a00:1::1 2001:0:4136:e378:8000:63bf:3fff:fdd2",
        ),
        (
            Rule::Reserved,
            "0.0.0.0 0.255.255.255 192.0.0.1 192.88.99.1 240.0.0.0 255.255.255.254 ::",
        ),
        (
            Rule::Reserved,
            "100::1 2001:10::1 2001:20::1 1fff::1 4000::1 5f00::1 e000::1",
        ),
    ];

    #[test]
    fn every_range_is_refused_from_its_first_to_its_last_address() {
        for (rule_of, addresses) in RANGES {
            for address in addresses.split(' ') {
                assert_eq!(rule(address), Some(rule_of), "{address}");
            }
        }
    }

    #[test]
    fn addresses_next_to_the_ranges_are_public() {
        for address in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "13.107.42.20",
            "2000::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "2606:4700::1",
            "2620:1ec:a92::152",
            "3ffe::1",
        ] {
            assert_eq!(rule(address), None, "{address}");
        }
    }

    #[test]
    fn the_development_setting_permits_loopback_only() {
        let open = |address: &str| broken_rule(address.parse().unwrap(), true);
        assert_eq!((open("127.0.0.1"), open("::1")), (None, None));
        assert_eq!(open("::ffff:127.0.0.1"), Some(Rule::Embedded));
        assert_eq!(
            (open("10.0.0.1"), open("169.254.169.254")),
            (Some(Rule::Private), Some(Rule::Metadata))
        );
    }
}
