//! Messages: the real worker sends one change through every channel, and the test checks what each
//! provider has received.

use std::time::Duration;

use dispatch_worker::devkit::simulator::faults::{FaultKind, FaultRule};
use dispatch_worker::devkit::simulator::state::State;
use dispatch_worker::devkit::simulator::witness::Provider;
use dispatch_worker::job::JobState;
use dispatch_worker::operations::retry;
use dispatch_worker::providers::channel::CHANNELS;
use dispatch_worker::providers::kind::ChannelKind;
use dispatch_worker::providers::simulated::SimulatedChannel;
use dispatch_worker::providers::{google_chat, slack, teams};
use dispatch_worker::store::{Actor, EffectRow, JobRow, JobView, Role, Target};
use dispatch_worker::tracker::DestinationDocument;
use serde_json::{Value, json};

use crate::support::{TestWorld, WorkerOptions, acme, wait_for};

const SOON: Duration = Duration::from_secs(60);
const SLACK: &str = "slack";
const HOOK: &str = "discord-webhook";
const MAIL: &str = "mail";
const CHAT_SECRET: &str = "canary-chat-secret";
const HOOK_ID: &str = "4200";
/// A text that no channel may interpret as markup, mentions or headers.
const HOSTILE: &str = "@everyone <!channel> <at>x</at> [a](b) \r\nBcc: eve@evil.example";

/// Returns the channels that simulate themselves. Each is also the name of a destination.
fn chats() -> impl Iterator<Item = (&'static ChannelKind, &'static SimulatedChannel)> {
    CHANNELS
        .iter()
        .filter_map(|kind| Some((*kind, kind.simulated.as_ref()?)))
}

/// Returns the names of all additional destinations.
fn additional() -> Vec<&'static str> {
    chats()
        .map(|(kind, _)| kind.name())
        .chain([HOOK, MAIL])
        .collect()
}

/// Returns the number of messages in the room of each chat.
fn in_chats(state: &State) -> Vec<usize> {
    let messages = chats().map(|(kind, _)| received(state, kind).len());
    messages.collect()
}

/// Returns the bodies of the messages in the room of a channel that simulates itself.
fn received<'s>(state: &'s State, kind: &ChannelKind) -> &'s [Value] {
    let chat = kind
        .simulated
        .as_ref()
        .expect("a channel that simulates itself");
    state.received(kind, chat.room)
}

/// Creates `acme` with additional destinations of all other kinds; `policy` is their policy for
/// unknown outcomes.
async fn world(policy: &str, title: &str) -> TestWorld {
    let world = TestWorld::acme().await;
    let simulator = world.simulator().await;
    let more = chats()
        .fold(State::new(), |state, (kind, chat)| {
            state.room(kind, chat.room, CHAT_SECRET)
        })
        .discord_webhook(HOOK_ID, "canary-hook-token")
        .mail_user(acme::MAIL_USER, "canary-mail-password");
    simulator.client.merge_state(&more).await.unwrap();
    let url = &simulator.url;
    let mut document = acme::document(url);
    let organization = &mut document.organizations[0];
    for group in &mut organization.projects[0].groups {
        title.clone_into(&mut group.title);
    }
    let mail = json!({"from": "Dispatch <dispatch@acme.example>", "to": [acme::ANN, acme::BOB]});
    let of_chats = chats().map(|(kind, chat)| {
        let (config, secret) = (chat.destination)(url, CHAT_SECRET);
        (kind.name(), kind.name(), config, secret)
    });
    let hook = format!("{url}/api/webhooks/{HOOK_ID}/canary-hook-token");
    let others = [
        (HOOK, "discord_webhook", json!({}), hook),
        (MAIL, "email", mail, "canary-mail-password".to_owned()),
    ];
    for (name, kind, config, secret) in of_chats.chain(others) {
        let (name, kind, unknown_policy) = (name.to_owned(), kind.to_owned(), policy.to_owned());
        let (secret, default) = (Some(secret), false);
        organization.destinations.push(DestinationDocument {
            name,
            kind,
            config,
            secret,
            default,
            unknown_policy,
            disabled: None,
        });
    }
    world.import(&document).await;
    world
}

/// Publishes a job whose change is sent to these destinations.
async fn publish_change(world: &TestWorld, notify: &[&str]) {
    let event = world.assign(acme::LONE_ITEM, Some(acme::ANN)).await;
    let mut job = acme::job("told", &event);
    job["notify"] = json!(notify);
    world.publish_job(&job).await;
}

/// Waits until the job has succeeded, with its messages.
async fn done(world: &TestWorld) {
    let succeeded = JobState::Succeeded;
    world.wait_job_state("told", succeeded, SOON).await;
}

async fn state(world: &TestWorld) -> State {
    world.simulator().await.client.state().await.unwrap()
}

/// Loses the answer to the next request to the provider.
async fn lose_answer(world: &TestWorld, provider: Provider) {
    let rule = FaultRule::new(FaultKind::LoseAnswer).provider(provider);
    fault(world, rule.times(1)).await;
}

async fn fault(world: &TestWorld, rule: FaultRule) {
    world.simulator().await.client.fault(&rule).await.unwrap();
}

/// Returns the only follow-up of the job, with its history.
async fn message(world: &TestWorld) -> JobView {
    let parent = world.job_by_key("told").await.unwrap();
    let children = world.job_view(parent.id).await.children;
    assert_eq!(children.len(), 1);
    world.job_view(children[0].id).await
}

fn effect(view: &JobView) -> &EffectRow {
    assert_eq!(view.effects.len(), 1);
    &view.effects[0]
}

#[tokio::test]
async fn one_change_is_sent_through_every_channel_and_its_text_is_never_interpreted() {
    let world = world("resend", HOSTILE).await;
    let _worker = world.worker(&WorkerOptions::default());
    let all = [&additional()[..], &[acme::DISCORD, acme::BLIND]].concat();
    publish_change(&world, &all).await;
    done(&world).await;
    let state = state(&world).await;
    assert!(in_chats(&state).iter().all(|messages| *messages == 1));
    slack_has_plain_text(&state);
    google_chat_has_text_without_markup(&state);
    teams_has_an_escaped_card(&state);
    discord_has_escaped_text_without_mentions(&state);
    the_mail_has_no_header_of_the_text(&state);
    let webhook: Value =
        serde_json::from_str(&state.webhooks[acme::BLIND].received[0].body).unwrap();
    assert_eq!(
        webhook["data"]["lines"][0], HOSTILE,
        "a webhook receives the text unchanged"
    );

    every_channel_has_an_effect_of_its_class(&world).await;
    no_secret_is_stored(&world).await;
}

fn slack_has_plain_text(state: &State) {
    let [slack] = received(state, &slack::KIND) else {
        panic!("one message in Slack")
    };
    let text = "WEB-2 is now assigned to Ann\n\
        @everyone &lt;!channel&gt; &lt;at&gt;x&lt;/at&gt; [a](b)   Bcc: eve\u{200a}@evil\u{200a}.example\n\
        Work item 19 in Azure DevOps decided.";
    assert_eq!(
        (&slack["text"], &slack["mrkdwn"], &slack["link_names"]),
        (&json!(text), &json!(false), &json!(false))
    );
}

fn google_chat_has_text_without_markup(state: &State) {
    // The sign `|` stands for a hair space.
    let text = "WEB-2 is now assigned to Ann\n\
        @everyone <|!channel> <|at>x<|/at> [a]|(b)   Bcc: eve|@evil|.example\n\
        Work item 19 in Azure DevOps decided.";
    let text = text.replace('|', "\u{200a}");
    assert_eq!(received(state, &google_chat::KIND), [json!({"text": text})]);
}

fn teams_has_an_escaped_card(state: &State) {
    let [card] = received(state, &teams::KIND) else {
        panic!("one card in Teams")
    };
    let blocks = card["attachments"][0]["content"]["body"]
        .as_array()
        .unwrap();
    let texts: Vec<&str> = blocks
        .iter()
        .filter_map(|block| block["text"].as_str())
        .collect();
    assert_eq!(
        texts[1],
        "@everyone \\<\\!channel\\> \\<at\\>x\\</at\\> \\[a\\]\\(b\\)   Bcc: eve\u{200a}@evil\u{200a}.example"
    );
    assert!(
        blocks
            .iter()
            .all(|block| block["type"] == "TextBlock" && block["wrap"] == true),
        "{card}"
    );
}

fn discord_has_escaped_text_without_mentions(state: &State) {
    let [posted] = &state.discord.webhooks[HOOK_ID].posted[..] else {
        panic!("one message in the webhook's channel")
    };
    assert!(
        posted.content.contains("@\u{200b}everyone \\<!channel\\>"),
        "{}",
        posted.content
    );
    assert_eq!(posted.allowed_mentions, json!({"parse": []}));
    assert_eq!(
        posted.content, state.discord.channels["1001"][0].content,
        "the same text as the bot's"
    );
}

fn the_mail_has_no_header_of_the_text(state: &State) {
    let [mail] = &state.mail.received[..] else {
        panic!("one mail")
    };
    assert_eq!(
        (mail.from.as_str(), mail.to.as_slice()),
        (
            "dispatch@acme.example",
            &[acme::ANN, acme::BOB].map(str::to_owned)[..]
        )
    );
    let (head, body) = mail.content.split_once("\n\n").unwrap();
    assert!(
        head.contains("Subject: WEB-2 is now assigned to Ann") && !head.contains("Bcc"),
        "{head}"
    );
    // The body is quoted-printable, as the characters that break up links are not ASCII.
    let body = body.replace("=\n", "").replace("=E2=80=8A", "|");
    assert!(
        body.contains("   Bcc: eve|@evil|.example") && !body.contains("\nBcc"),
        "{body}"
    );
}

async fn every_channel_has_an_effect_of_its_class(world: &TestWorld) {
    let known = world
        .database
        .rows("SELECT detail ->> 'kind', class, provider_ref FROM effects ORDER BY 1")
        .await;
    let known: Vec<(&str, &str)> = known
        .iter()
        .map(|row| (row[0].as_str(), row[1].as_str()))
        .collect();
    let class = |name| if name == "discord" { "K2" } else { "K3" };
    let right: Vec<(&str, &str)> = CHANNELS
        .iter()
        .map(|kind| (kind.name(), class(kind.name())))
        .collect();
    assert_eq!(known, right);
    let reference = world
        .database
        .one("SELECT provider_ref FROM effects WHERE detail ->> 'kind' = 'slack'")
        .await;
    assert!(reference.starts_with("C042/"), "{reference}");
    let reference = world
        .database
        .one(
            "SELECT provider_ref = '<' || key || '@acme.example>' FROM effects WHERE class = 'K3'
        AND detail ->> 'kind' = 'email'",
        )
        .await;
    assert_eq!(reference, "t", "the Message-ID is the key of the effect");
}

/// Asserts that no row contains a secret in plaintext.
async fn no_secret_is_stored(world: &TestWorld) {
    const ROWS: &str = "
        SELECT count(*) FROM (
            SELECT j::text AS row FROM jobs j UNION ALL SELECT c::text FROM checkpoints c UNION ALL SELECT e::text FROM effects e
            UNION ALL SELECT a::text FROM attempts a UNION ALL SELECT d::text FROM destinations d
        ) r WHERE row LIKE '%canary-%'";
    assert_eq!(world.database.one(ROWS).await, "0");
}

#[tokio::test]
async fn an_oversized_message_is_truncated_to_the_limit_of_each_channel() {
    let world = world("resend", &"<é".repeat(30_000)).await;
    let _worker = world.worker(&WorkerOptions::default());
    publish_change(&world, &additional()).await;
    done(&world).await;
    let state = state(&world).await;
    assert!(in_chats(&state).iter().all(|messages| *messages == 1));
    for kind in [&slack::KIND, &google_chat::KIND] {
        let text = received(&state, kind)[0]["text"].as_str().unwrap();
        assert!(text.chars().count() <= 4000 && text.ends_with('…'));
    }
    assert!(received(&state, &teams::KIND)[0].to_string().len() <= 28 * 1024);
    let posted = &state.discord.webhooks[HOOK_ID].posted[0].content;
    assert!(posted.chars().count() <= 2000 && posted.ends_with('…'));
    assert!(state.mail.received[0].content.len() < 256 * 1024);
}

#[tokio::test]
async fn a_rate_limited_message_is_retried_and_delivered_once() {
    let world = world("hold", "Logout is slow").await;
    let of_chats = chats().map(|(kind, _)| (Provider::chat(kind), format!("/{}/", kind.name())));
    let others = [
        (Provider::Discord, "/webhooks/".to_owned()),
        (Provider::Email, "/smtp".to_owned()),
    ];
    for (provider, path) in of_chats.chain(others) {
        fault(
            &world,
            FaultRule::new(FaultKind::RateLimit)
                .provider(provider)
                .path_contains(&path)
                .times(1),
        )
        .await;
    }
    let _worker = world.worker(&WorkerOptions::default());
    publish_change(&world, &additional()).await;
    done(&world).await;
    let codes = world
        .database
        .one("SELECT string_agg(error_code, ' ' ORDER BY error_code) FROM attempts")
        .await;
    let of_chats = chats().map(|(kind, _)| format!("{}.rate_limited", kind.name()));
    let others = ["discord_webhook.rate_limited", "email.try_later"].map(str::to_owned);
    let mut right: Vec<String> = of_chats.chain(others).collect();
    right.sort_unstable();
    assert_eq!(codes, right.join(" "));
    let state = state(&world).await;
    let others = [
        state.discord.webhooks[HOOK_ID].posted.len(),
        state.mail.received.len(),
    ];
    let message_counts = [&in_chats(&state)[..], &others].concat();
    assert!(
        message_counts.iter().all(|messages| *messages == 1),
        "{message_counts:?}"
    );
    assert_eq!(
        world
            .database
            .one("SELECT sum(unknowns) FROM effects")
            .await,
        "0",
        "no outcome was unknown"
    );
}

#[tokio::test]
async fn a_message_with_a_lost_answer_is_sent_again_after_the_possible_duplicate_is_recorded() {
    let world = world("resend", "Logout is slow").await;
    lose_answer(&world, Provider::chat(&slack::KIND)).await;
    let options = WorkerOptions {
        call_seconds: Some(2),
        ..WorkerOptions::default()
    };
    let crash_at = Some("deliver_message:after_intent:2".to_owned());
    let mut first = world.worker(&WorkerOptions {
        crash_at,
        ..options.clone()
    });
    publish_change(&world, &[SLACK]).await;
    first.wait_exit(SOON).await;
    // The second intent is stored, but its call has not been made.
    assert_eq!(received(&state(&world).await, &slack::KIND).len(), 1);
    let view = message(&world).await;
    assert_eq!(
        (effect(&view).class.as_str(), effect(&view).unknowns),
        ("K3", 1)
    );

    let _second = world.worker(&options);
    done(&world).await;
    let (view, sent) = (
        message(&world).await,
        received(&state(&world).await, &slack::KIND).len(),
    );
    assert_eq!((effect(&view).state.as_str(), sent), ("confirmed", 2));
    // After the crash, the outcome of the second call was unknown as well.
    assert_eq!(effect(&view).unknowns, 2);
}

/// Waits until the only follow-up of the job is parked.
async fn parked_message(world: &TestWorld) -> JobRow {
    wait_for("the message to be parked", SOON, async || {
        let Some(parent) = world.job_by_key("told").await else {
            return Err("there is no job yet".to_owned());
        };
        let children = world.job_view(parent.id).await.children;
        let parked = children
            .into_iter()
            .find(|child| child.state == JobState::Parked);
        parked.ok_or_else(|| format!("the parent is {}", parent.state))
    })
    .await
}

#[tokio::test]
async fn a_message_with_a_lost_answer_is_parked_for_a_person_whose_retry_is_recorded() {
    let world = world("hold", "Logout is slow").await;
    lose_answer(&world, Provider::Email).await;
    let _worker = world.worker(&WorkerOptions::default());
    publish_change(&world, &[MAIL]).await;
    let parked = parked_message(&world).await;
    assert_eq!(parked.error_code.as_deref(), Some("unknown_outcome"));
    let parent = world.job_by_key("told").await.unwrap();
    assert_eq!(
        (parent.state, parent.wait_reason.as_deref()),
        (JobState::Waiting, Some("children"))
    );
    let (view, mails) = (message(&world).await, state(&world).await.mail.received);
    assert_eq!(
        (effect(&view).unknowns, mails.len()),
        (0, 1),
        "the message was not sent again"
    );

    let actor = Actor {
        who: "ann".to_owned(),
        role: Role::Admin,
        reason: Some("it is not there".to_owned()),
        request: None,
    };
    let target = Target::Id(parked.id);
    retry(&world.store(), &actor, &target).await.unwrap();
    done(&world).await;
    let (view, mails) = (message(&world).await, state(&world).await.mail.received);
    let sent = effect(&view);
    assert_eq!(
        (sent.state.as_str(), sent.unknowns, mails.len()),
        ("confirmed", 1, 2)
    );
    assert_eq!(
        message_id(&mails[0].content),
        message_id(&mails[1].content),
        "the duplicate has the same Message-ID"
    );
    assert_eq!(
        world
            .database
            .one("SELECT action || ' by ' || who FROM audit_log")
            .await,
        "retry by ann"
    );
}

#[tokio::test]
async fn a_slow_mail_server_is_waited_for_and_a_hanging_one_times_out_without_an_unknown_outcome() {
    let world = world("hold", "Logout is slow").await;
    fault(
        &world,
        FaultRule::new(FaultKind::Hang)
            .provider(Provider::Email)
            .times(1),
    )
    .await;
    fault(
        &world,
        FaultRule::new(FaultKind::Slow)
            .provider(Provider::Email)
            .millis(300)
            .times(1),
    )
    .await;
    let _worker = world.worker(&WorkerOptions {
        call_seconds: Some(2),
        ..WorkerOptions::default()
    });
    publish_change(&world, &[MAIL]).await;
    done(&world).await;
    assert_eq!(
        world
            .database
            .one("SELECT string_agg(error_code, ' ') FROM attempts")
            .await,
        "email.timed_out"
    );
    let (view, mails) = (message(&world).await, state(&world).await.mail.received);
    assert_eq!((effect(&view).unknowns, mails.len()), (0, 1));
}

fn message_id(mail: &str) -> Option<String> {
    let line = mail.lines().find(|line| line.starts_with("Message-ID"));
    line.map(str::to_owned)
}
