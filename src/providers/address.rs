//! Which addresses may be called: the rules that keep a request from being turned inwards (SSRF).
//!
//! A destination's address is other people's text, and so is what its name resolves to. Only addresses of the public
//! internet are called; which they are not is said by the IANA registries of special-purpose addresses
//! (<https://www.iana.org/assignments/iana-ipv4-special-registry>, `iana-ipv6-special-registry`) and by the few that clouds
//! answer on. A literal is looked at in the URL; a name is looked at by `Resolver`, which is the driver's own, so that what
//! is connected to is what was looked at, whatever the name resolves to a moment later.
//!
//! **Invariant:** a request goes only to an address that was looked at for the connection it goes over.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::{fmt, io};

use futures_util::future::{BoxFuture, FutureExt};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Why an address is not called. `Display` says what would be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// This machine.
    Loopback,
    /// A private network: RFC 1918, unique-local (RFC 4193), site-local (RFC 3879).
    Private,
    /// This link: RFC 3927, RFC 4291.
    LinkLocal,
    /// Where clouds tell a machine its credentials.
    Metadata,
    /// Behind a carrier's translation: RFC 6598.
    Shared,
    /// More than one machine: multicast and broadcast.
    Many,
    /// For examples (RFC 5737, RFC 3849, RFC 9637) and measurements (RFC 2544, RFC 5180).
    Example,
    /// An IPv4 address inside an IPv6 one, which is routed by what is inside: mapped, compatible, NAT64 (RFC 6052, RFC
    /// 8215), 6to4 and Teredo.
    Embedded,
    /// Not given to anybody: "this network", protocol assignments, the future's.
    Reserved,
}

impl Rule {
    /// What would be right.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Loopback => "the address must not be of this machine (127.0.0.0/8, ::1); right is one of the public internet",
            Self::Private => {
                "the address must not be private (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, fc00::/7); right is one of the \
                 public internet"
            }
            Self::LinkLocal => {
                "the address must not be link-local (169.254.0.0/16, fe80::/10); right is one of the public internet"
            }
            Self::Metadata => "the address must not be a cloud's metadata service; right is one of the public internet",
            Self::Shared => "the address must not be a carrier's shared one (100.64.0.0/10); right is one of the public internet",
            Self::Many => "the address must be one machine's, not multicast or broadcast",
            Self::Example => "the address must not be one for documentation or measurements; right is the address that is meant",
            Self::Embedded => {
                "the address must not be an IPv4 address inside an IPv6 one (mapped, NAT64, 6to4, Teredo); right is the IPv4 \
                 address itself"
            }
            Self::Reserved => "the address must not be a reserved one; right is one of the public internet",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The rule that `address` breaks; `allow_loopback` is the development setting.
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

/// AWS, Azure, Google and most others; AWS and Google over IPv6; Alibaba; Azure's host, which is a public address that only
/// its guests reach.
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
        // NAT64; Teredo; 6to4. The latter two are withdrawn: nobody is reached by them only.
        [0x64, 0xff9b, ..] | [0x2001, 0, ..] | [0x2002, ..] => Rule::Embedded,
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] => Rule::Private,
        [0xfe80..=0xfebf, ..] => Rule::LinkLocal,
        [0xff00..=0xffff, ..] => Rule::Many,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] | [0x2001, 2, 0, ..] => Rule::Example,
        // Protocol assignments (2001::/23), and whatever is not of the one block that is given to people.
        [0x2001, 0..=0x1ff, ..] | [0..=0x1fff | 0x4000.., ..] => Rule::Reserved,
        _ => return None,
    })
}

/// A name that resolves to what may not be called.
#[derive(Debug, thiserror::Error)]
#[error("{name} resolves to {address}: {rule}")]
pub struct RefusedName {
    name: String,
    address: IpAddr,
    rule: Rule,
}

impl RefusedName {
    /// Among the causes of an error.
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

/// Resolves a name to addresses (their port does not matter).
pub(super) type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The driver's resolver: gives only addresses that may be called.
///
/// One that may not be called among others refuses the name: whoever serves the public internet has no reason to name an
/// inner address beside it, and the driver, which tries them in turn, would reach it as soon as the others do not answer.
pub(super) struct Resolver {
    allow_loopback: bool,
    lookup: Lookup,
}

impl Resolver {
    /// Asks the system.
    pub(super) fn of_system(allow_loopback: bool) -> Self {
        let ask = |name: String| async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }.boxed();
        Self::new(allow_loopback, Arc::new(ask))
    }

    pub(super) fn new(allow_loopback: bool, lookup: Lookup) -> Self {
        Self { allow_loopback, lookup }
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
                    return Err(RefusedName { name, address, rule }.into());
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

    #[test]
    fn every_range_is_refused_from_its_first_address_to_its_last() {
        for (rule_of, addresses) in [
            (Rule::Loopback, &["127.0.0.0", "127.255.255.255", "::1"][..]),
            (Rule::Private, &["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255"]),
            (Rule::Private, &["fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fec0::1", "feff::1"]),
            (Rule::LinkLocal, &["169.254.0.0", "169.254.255.255", "fe80::", "febf:ffff::"]),
            (Rule::Metadata, &["169.254.169.254", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16"]),
            (Rule::Shared, &["100.64.0.0", "100.127.255.255"]),
            (Rule::Many, &["224.0.0.0", "239.255.255.255", "255.255.255.255", "ff00::", "ff02::1"]),
            (Rule::Example, &["192.0.2.0", "198.51.100.255", "203.0.113.7", "198.18.0.0", "198.19.255.255"]),
            (Rule::Example, &["2001:db8::", "2001:db8:ffff::1", "3fff::1", "3fff:fff::1", "2001:2::1"]),
            (Rule::Embedded, &["::ffff:8.8.8.8", "::ffff:127.0.0.1", "::8.8.8.8", "::ffff:0:10.0.0.1", "::2"]),
            (Rule::Embedded, &["64:ff9b::8.8.8.8", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "64:ff9b:1:ffff::1"]),
            (Rule::Embedded, &["2002:7f00:1::", "2002:a00:1::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"]),
            (Rule::Reserved, &["0.0.0.0", "0.255.255.255", "192.0.0.1", "192.88.99.1", "240.0.0.0", "255.255.255.254", "::"]),
            (Rule::Reserved, &["100::1", "2001:10::1", "2001:20::1", "1fff::1", "4000::1", "5f00::1", "e000::1"]),
        ] {
            for address in addresses {
                assert_eq!(rule(address), Some(rule_of), "{address}");
            }
        }
    }

    #[test]
    fn what_lies_beside_the_ranges_is_public() {
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
    fn the_development_setting_opens_loopback_and_nothing_else() {
        let open = |address: &str| broken_rule(address.parse().unwrap(), true);
        assert_eq!((open("127.0.0.1"), open("::1")), (None, None));
        assert_eq!(open("::ffff:127.0.0.1"), Some(Rule::Embedded));
        assert_eq!((open("10.0.0.1"), open("169.254.169.254")), (Some(Rule::Private), Some(Rule::Metadata)));
    }
}
