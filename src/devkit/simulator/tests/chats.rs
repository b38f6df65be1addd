use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::{Bench, json_of, status_of};
use crate::devkit::simulator::faults::{FaultKind, FaultRule};
use crate::devkit::simulator::state::State;
use crate::devkit::simulator::witness::Provider;
use crate::devkit::simulator::{Simulator, World, smtp, witness};
use crate::providers::{slack, teams};

async fn bench() -> Bench {
    let state = State::new()
        .room(&slack::KIND, "C1", "slack-token")
        .room(&teams::KIND, "flow", "sig")
        .discord_webhook("42", "hook-token")
        .click("99", "click-token", Some("7"));
    let bench = Bench::start(state).await;
    let mut ended = State::new().click("99", "ended-token", None);
    ended
        .discord
        .clicks
        .values_mut()
        .for_each(|click| click.ended = true);
    bench.client.merge_state(&ended).await.unwrap();
    bench
}

#[tokio::test]
async fn slack_says_inside_a_200_what_is_wrong() {
    let bench = bench().await;
    let post = |token: &str, body: Value| {
        let request = bench
            .http
            .post(format!("{}/slack/api/chat.postMessage", bench.client.url()));
        json_of(request.bearer_auth(token).json(&body))
    };
    for (token, body, error) in [
        (
            "other",
            json!({"channel": "C1", "text": "x"}),
            "invalid_auth",
        ),
        (
            "slack-token",
            json!({"channel": "C2", "text": "x"}),
            "channel_not_found",
        ),
        ("slack-token", json!({"channel": "C1"}), "no_text"),
        (
            "slack-token",
            json!({"channel": "C1", "text": "x".repeat(40_001)}),
            "msg_too_long",
        ),
    ] {
        assert_eq!(
            post(token, body).await,
            (200, json!({"ok": false, "error": error}))
        );
        assert!(!bench.last_entry().effect);
    }
    let (_, posted) = post("slack-token", json!({"channel": "C1", "text": "x"})).await;
    assert_eq!(
        (&posted["ok"], &posted["channel"]),
        (&json!(true), &json!("C1"))
    );
    let entry = bench.last_entry();
    assert_eq!(
        (entry.provider, entry.effect, entry.subject.as_deref()),
        (Provider::chat(&slack::KIND), true, Some("slack:C1"))
    );
}

#[tokio::test]
async fn a_workflow_takes_a_small_card_with_its_signature_and_nothing_else() {
    let bench = bench().await;
    let card = |text: &str| {
        let content =
            json!({"type": "AdaptiveCard", "body": [{"type": "TextBlock", "text": text}]});
        json!({"type": "message", "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "content": content}]})
    };
    for (query, body, status) in [
        ("sig=sig", card("x"), 202),
        ("sig=other", card("x"), 401),
        ("", card("x"), 401),
        ("sig=sig", card(&"x".repeat(28 * 1024)), 413),
        ("sig=sig", json!({"text": "x"}), 400),
    ] {
        let request = bench
            .http
            .post(format!("{}/teams/flow?{query}", bench.client.url()))
            .json(&body);
        assert_eq!(status_of(request).await, status, "{query}");
        assert_eq!(bench.last_entry().effect, status == 202);
    }
}

#[tokio::test]
async fn a_webhook_and_a_click_take_messages_and_an_ended_click_does_not() {
    let bench = bench().await;
    let call = |method: Method, path: &str, text: &str| {
        let request = bench.http.request(
            method,
            format!("{}/api/v10/webhooks/{path}", bench.client.url()),
        );
        request.json(&json!({"content": text, "flags": 64}))
    };
    assert_eq!(
        status_of(call(Method::POST, "42/hook-token", "silent")).await,
        204
    );
    let (status, told) = json_of(call(Method::POST, "42/hook-token?wait=true", "told")).await;
    assert_eq!((status, &told["content"]), (200, &json!("told")));
    assert_eq!(
        json_of(call(Method::POST, "42/other", "x")).await.1["code"],
        50027
    );
    assert_eq!(
        json_of(call(Method::POST, "99/ended-token", "x")).await.1["code"],
        10015
    );
    assert_eq!(
        json_of(call(Method::POST, "99/click-token", "new")).await.0,
        200
    );
    assert_eq!(
        json_of(call(
            Method::PATCH,
            "99/click-token/messages/@original",
            "edited"
        ))
        .await
        .1["id"],
        "7"
    );
    assert_eq!(
        json_of(call(Method::PATCH, "99/click-token/messages/8", "x"))
            .await
            .1["code"],
        10008
    );
    let discord = bench.client.state().await.unwrap().discord;
    let texts = |posted: &[crate::devkit::simulator::chats::Posted]| {
        posted
            .iter()
            .map(|one| one.content.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(texts(&discord.webhooks["42"].posted), ["silent", "told"]);
    assert_eq!(
        texts(&discord.clicks["click-token"].posted),
        ["edited", "new"]
    );
}

/// A mail server on a loopback port with its witness log, and one dialogue.
struct MailBench {
    simulator: std::sync::Arc<Simulator>,
    witness: std::path::PathBuf,
    server: tokio::task::JoinHandle<()>,
    write: OwnedWriteHalf,
    replies: Lines<BufReader<OwnedReadHalf>>,
}

impl Drop for MailBench {
    fn drop(&mut self) {
        self.server.abort();
        std::fs::remove_file(&self.witness).unwrap();
    }
}

impl MailBench {
    #[expect(
        clippy::disallowed_methods,
        reason = "the server runs beside the test that calls it"
    )]
    async fn start(state: State) -> Self {
        let path = std::env::temp_dir().join(format!("witness-{}", uuid::Uuid::now_v7()));
        let witness = witness::Witness::open(&path).unwrap();
        let simulator = std::sync::Arc::new(Simulator {
            world: std::sync::Mutex::new(World::new(state)),
            witness,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(smtp::serve(listener, std::sync::Arc::clone(&simulator)));
        let (read, write) = TcpStream::connect(address).await.unwrap().into_split();
        let mut bench = Self {
            simulator,
            witness: path,
            server,
            write,
            replies: BufReader::new(read).lines(),
        };
        assert_eq!(bench.reply().await, "220 simulator");
        bench
    }

    async fn reply(&mut self) -> String {
        self.replies.next_line().await.unwrap().unwrap()
    }

    /// Sends each line and expects a reply that begins with its code.
    async fn converse(&mut self, lines: &[(&str, &str)]) {
        for (line, code) in lines {
            self.write
                .write_all(format!("{line}\r\n").as_bytes())
                .await
                .unwrap();
            let reply = self.reply().await;
            assert!(reply.starts_with(code), "{line}: {reply}");
        }
    }

    fn entries(&self) -> Vec<witness::Entry> {
        witness::read(&self.witness).unwrap()
    }
}

#[tokio::test]
async fn a_mail_is_taken_after_signing_in_and_is_in_the_witness_before_its_sender_knows() {
    let mut bench = MailBench::start(State::new().mail_user("robot", "secret")).await;
    let dialogue = [
        ("MAIL FROM:<a@b.example>", "530"),
        ("AUTH PLAIN AHJvYm90AHdyb25n", "535"),
        ("AUTH PLAIN AHJvYm90AHNlY3JldA==", "235"),
        ("MAIL FROM:<a@b.example>", "250"),
        ("RCPT TO:<c@d.example>", "250"),
        ("DATA", "354"),
        ("Message-ID: <key@b.example>\r\n\r\n..dot\r\n.", "250"),
    ];
    bench.converse(&dialogue).await;
    let entry = bench.entries().pop().unwrap();
    assert_eq!(
        (entry.provider, entry.key.as_deref(), entry.status),
        (Provider::Email, Some("key"), Some(250))
    );
    let mail = bench.simulator.world().state.mail.received.pop().unwrap();
    assert_eq!(
        (mail.from.as_str(), mail.content.as_str()),
        ("a@b.example", "Message-ID: <key@b.example>\n\n.dot\n")
    );
}

#[tokio::test]
async fn one_recipient_is_refused_and_the_others_have_the_mail() {
    let mut bench = MailBench::start(State::new()).await;
    let refused = FaultRule::answering(550, "550 5.1.1 unknown")
        .method("RCPT")
        .path_contains("gone@d.example");
    bench.simulator.world().faults.add(refused);
    // A rule for whole mails is not used up by a recipient.
    bench.simulator.world().faults.add(
        FaultRule::new(FaultKind::Slow)
            .provider(Provider::Email)
            .millis(1)
            .times(1),
    );
    let dialogue = [
        ("MAIL FROM:<a@b.example>", "250"),
        ("RCPT TO:<gone@d.example>", "550 5.1.1 unknown"),
        ("DATA", "554"),
        ("RCPT TO:<c@d.example>", "250"),
        ("RCPT TO:<e@d.example>", "250"),
        ("DATA", "354"),
        ("Message-ID: <key@b.example>\r\n\r\n.", "250"),
    ];
    bench.converse(&dialogue).await;
    let mail = bench.simulator.world().state.mail.received.pop().unwrap();
    assert_eq!(mail.to, ["c@d.example", "e@d.example"]);
    let seen: Vec<_> = bench
        .entries()
        .iter()
        .map(|entry| (entry.method.clone(), entry.status, entry.fault))
        .collect();
    let refusal = ("RCPT".to_owned(), Some(550), Some(FaultKind::Answer));
    assert_eq!(
        seen,
        [
            refusal,
            ("DATA".to_owned(), Some(250), Some(FaultKind::Slow))
        ]
    );
    assert_eq!(
        bench.entries()[0].subject.as_deref(),
        Some("email:gone@d.example")
    );
}
