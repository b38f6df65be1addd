//! Runbooks as markup: headings, paragraphs, lists, and code. The text is a file of this program,
//! and everything else in it is shown as it stands.

use maud::{Markup, html};

/// A part of a runbook.
#[derive(Debug, PartialEq, Eq)]
enum Block<'t> {
    Heading(&'t str),
    Paragraph(String),
    List(Vec<&'t str>),
    Code(String),
}

/// Returns a runbook from its first section on: its heading and its summary are those of the page.
pub(super) fn runbook(text: &str) -> Markup {
    html! {
        @for block in blocks(text).into_iter().skip_while(|block| !matches!(block, Block::Heading(_))) {
            @match block {
                Block::Heading(text) => h2 { (text) },
                Block::Paragraph(text) => p { (inline(&text)) },
                Block::List(items) => ul { @for item in items { li { (inline(item)) } } },
                Block::Code(text) => pre { code { (text) } },
            }
        }
    }
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            let code: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block::Code(code.join("\n")));
        } else if let Some(heading) = line.strip_prefix("## ") {
            blocks.push(Block::Heading(heading));
        } else if let Some(item) = line.strip_prefix("- ") {
            match blocks.last_mut() {
                Some(Block::List(items)) => items.push(item),
                _ => blocks.push(Block::List(vec![item])),
            }
        } else if line.is_empty() {
            // It ends a paragraph.
            blocks.push(Block::Paragraph(String::new()));
        } else if !line.starts_with("# ") {
            match blocks.last_mut() {
                Some(Block::Paragraph(before)) if !before.is_empty() => {
                    before.push(' ');
                    before.push_str(line);
                }
                _ => blocks.push(Block::Paragraph(line.to_owned())),
            }
        }
    }
    blocks.retain(|block| *block != Block::Paragraph(String::new()));
    blocks
}

/// Returns text with the parts in backquotes as code.
fn inline(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::ALERTS;

    #[test]
    fn every_runbook_has_its_sections_and_no_markup_that_is_not_rendered() {
        for alert in ALERTS {
            let blocks = blocks(alert.runbook);
            for heading in ["Meaning", "First command", "Safe actions"] {
                assert!(blocks.contains(&Block::Heading(heading)), "{}", alert.name);
            }
            for block in &blocks {
                if let Block::Paragraph(text) = block {
                    let others = ["#", "|", "* ", "1. ", "> ", "**", "](", "<"];
                    assert!(
                        !others.iter().any(|begin| text.contains(begin)),
                        "{}: {text}",
                        alert.name
                    );
                    assert_eq!(text.matches('`').count() % 2, 0, "{text}");
                }
            }
        }
    }

    #[test]
    fn a_runbook_is_rendered_and_escaped() {
        let text = "# Alert\n\nSummary.\n\n## Do\n\nTwo\nlines <b>.\n\n```sh\ndispatch a < b\n```\n\n- one `x`\n- two\n";
        assert_eq!(
            runbook(text).into_string(),
            "<h2>Do</h2><p>Two lines &lt;b&gt;.</p><pre><code>dispatch a &lt; b</code></pre>\
             <ul><li>one <code>x</code></li><li>two</li></ul>"
        );
    }
}
