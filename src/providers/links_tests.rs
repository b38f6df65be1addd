//! Tests that untrusted text is not a link in any chat or mail.

use super::channel::{CHANNELS, channels};
use super::scripted::{message, parts};
use super::text::LINK_BREAK;
use super::webhook;

/// Texts that programs turn into links, as they occur in titles and names of people.
const LINKS: [&str; 7] = [
    "https://evil.example/login",
    "http://10.0.0.1/",
    "www.evil.example",
    "evil.example",
    "eve@evil.example",
    "mailto:eve@evil.example",
    "[bill](https://evil.example)",
];

#[test]
fn no_channel_for_people_shows_a_link_in_untrusted_text() {
    let lines = LINKS.map(|link| format!("Pay at {link} today"));
    let title = format!("WEB-17 is now assigned to {}", LINKS.join(" "));
    let message = message(&title, &lines.each_ref().map(String::as_str));
    let mut seen = Vec::new();
    for channel in channels(parts()) {
        // A webhook delivers to programs, without changes for people.
        if channel.kind() == webhook::KIND.name() {
            continue;
        }
        let rendered = channel.render(&message).0;
        // A card contains the URL of its schema.
        let text = rendered
            .replace("http://adaptivecards.io/schemas/adaptive-card.json", "")
            .replace("vnd.microsoft.card.adaptive", "");
        let text = text
            .replace(r#""subject":"#, "")
            .split(r#""text":"#)
            .skip(usize::from(channel.kind() == "email"))
            .collect::<String>();
        for sign in [
            "https:", "http:", "mailto:", "www.", "evil.", "eve@", "10.0",
        ] {
            assert!(!text.contains(sign), "{}: {sign} in {text}", channel.kind());
        }
        assert!(
            text.contains(&format!("evil{LINK_BREAK}.example")),
            "{}: the text stays readable: {text}",
            channel.kind()
        );
        seen.push(channel.kind());
    }
    let kinds = CHANNELS.iter().map(|kind| kind.name());
    let for_people: Vec<_> = kinds.filter(|kind| *kind != webhook::KIND.name()).collect();
    assert_eq!(seen, for_people);
}
