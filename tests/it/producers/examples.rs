//! The example producers of `docs/producers.md` have valid messages and code that parses, and they
//! work as documented. Their libraries are installed next to them. An example is skipped, with a
//! message, only if its interpreter or the installer of its library is missing.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use dispatch_worker::job::JobState;
use dispatch_worker::message::schema;
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::house::documents::document;
use crate::support::{TestWorld, WorkerOptions, wait_for};

const SOON: Duration = Duration::from_secs(60);
/// The limit for installing a library from a registry.
const INSTALL_WITHIN: Duration = Duration::from_secs(180);
/// The producer of both examples.
const SOURCE: &str = "examples";

/// Serializes installations: two tests may need the same library.
static INSTALL: Mutex<()> = Mutex::const_new(());

/// The language of an example.
struct Language {
    /// The example's file, as the marker names it.
    file: &'static str,
    fence: &'static str,
    interpreter: &'static str,
    /// Arguments with which the interpreter parses a file without running it; the file's name
    /// follows.
    check: &'static [&'static str],
    /// The dedupe key of the example's job.
    key: &'static str,
    library: &'static str,
    /// Arguments with which the interpreter checks that the library is found; run in the example's
    /// folder.
    finds: &'static [&'static str],
    /// A command that checks whether libraries can be installed.
    installer: &'static [&'static str],
    /// A command that installs the library, whose name follows, into the current folder.
    install: &'static [&'static str],
}

const PYTHON: Language = Language {
    file: "producer.py",
    fence: "python",
    interpreter: "python3",
    check: &["-m", "py_compile"],
    key: "order-17",
    library: "pika==1.4.4",
    finds: &["-c", "import pika"],
    installer: &["python3", "-m", "pip", "--version"],
    install: &[
        "python3", "-m", "pip", "install", "--quiet", "--target", ".",
    ],
};
const NODE: Language = Language {
    file: "producer.js",
    fence: "js",
    interpreter: "node",
    check: &["--check"],
    key: "order-18",
    library: "amqplib@2.3.1",
    finds: &["-e", "require('amqplib')"],
    installer: &["npm", "--version"],
    install: &[
        "npm",
        "install",
        "--no-fund",
        "--no-audit",
        "--no-save",
        "--prefix",
        ".",
    ],
};

impl Language {
    /// Returns the example's source text.
    fn code(&self) -> String {
        let producers = document("docs/producers.md");
        let start = format!("<!-- {} -->\n```{}\n", self.file, self.fence);
        let (_, rest) = producers
            .split_once(&start)
            .unwrap_or_else(|| panic!("docs/producers.md has no `{start}`"));
        rest.split_once("\n```\n")
            .expect("the fence is closed")
            .0
            .to_owned()
    }

    /// Returns the object literal that is assigned to a name. The literal is JSON.
    fn literal(&self, name: &str) -> Value {
        let code = self.code();
        let (_, rest) = code
            .split_once(&format!("{name} = "))
            .unwrap_or_else(|| panic!("{}: no {name}", self.file));
        let end = rest.find("\n}").expect("the literal ends") + 2;
        serde_json::from_str(&rest[..end])
            .unwrap_or_else(|error| panic!("{}: {name}: {error}", self.file))
    }

    /// Writes the example into its folder. Returns the folder and the interpreter's command, or
    /// `None`, with a message, if there is no interpreter.
    async fn command(&self) -> Option<(PathBuf, Command)> {
        let folder =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("producer-{}", self.fence));
        fs::create_dir_all(&folder).expect("a folder for the example");
        let file = folder.join(self.file);
        fs::write(&file, self.code()).expect("the example is written");
        if let Err(why) = succeeds(Command::new(self.interpreter).arg("--version")).await {
            eprintln!(
                "docs/producers.md's {}: skipped, {} is missing: {why}",
                self.file, self.interpreter
            );
            return None;
        }
        let mut command = Command::new(self.interpreter);
        // Python searches this folder for libraries; Node searches next to the file.
        command
            .env("PYTHONPATH", &folder)
            .current_dir(&folder)
            .kill_on_drop(true);
        Some((folder, command))
    }

    /// Returns the command that runs the example, after installing its library next to it if it is
    /// not found.
    async fn with_library(&self) -> Option<Command> {
        let (folder, mut command) = self.command().await?;
        let guard = INSTALL.lock().await;
        let (_, mut finds) = self.command().await?;
        finds.args(self.finds);
        if succeeds(&mut finds).await.is_err() {
            if let Err(why) = succeeds(&mut started(self.installer)).await {
                eprintln!(
                    "docs/producers.md's {}: skipped, nothing here installs {}: {why}",
                    self.file, self.library
                );
                return None;
            }
            let installed =
                succeeds(started(self.install).arg(self.library).current_dir(&folder)).await;
            let found = succeeds(&mut finds).await;
            assert!(
                found.is_ok(),
                "{} is not installed: {} gave {installed:?}; then {found:?}",
                self.library,
                self.install[0]
            );
        }
        drop(guard);
        command.arg(folder.join(self.file));
        Some(command)
    }
}

fn started(line: &[&str]) -> Command {
    let [program, arguments @ ..] = line else {
        panic!("a command has a program")
    };
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Runs a command to its end. The error contains its status and its error output.
async fn succeeds(command: &mut Command) -> Result<(), String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(INSTALL_WITHIN, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(format!(
            "{}, {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it has not ended after {INSTALL_WITHIN:?}")),
    }
}

#[tokio::test]
async fn the_examples_messages_are_valid_and_their_code_parses() {
    let valid = |schema: &Value, message: &Value| {
        assert!(jsonschema::is_valid(schema, message), "{message}")
    };
    for language in [PYTHON, NODE] {
        valid(&schema::job(), &language.literal("JOB"));
        let cancel = language.literal("CANCEL");
        valid(&schema::cancel(), &cancel);
        assert_eq!(
            (&cancel["source"], &cancel["dedupe_key"]),
            (&SOURCE.into(), &language.key.into())
        );
        let Some((folder, mut command)) = language.command().await else {
            continue;
        };
        let checked = command
            .args(language.check)
            .arg(folder.join(language.file))
            .output()
            .await
            .expect("it runs");
        assert!(
            checked.status.success(),
            "{}: {}",
            language.file,
            String::from_utf8_lossy(&checked.stderr)
        );
    }
}

#[tokio::test]
async fn the_python_example_works_as_documented() {
    does_what_it_says(&PYTHON).await;
}

#[tokio::test]
async fn the_node_example_works_as_documented() {
    does_what_it_says(&NODE).await;
}

/// Asserts that the example's job is accepted, waits for an account, gets one and succeeds, and
/// that the example cancels a job that no worker takes in time.
async fn does_what_it_says(language: &Language) {
    let Some(mut command) = language.with_library().await else {
        return;
    };
    let world = TestWorld::acme().await;
    let worker = world.worker(&WorkerOptions::default());
    command
        .env("AMQP_URL", world.amqp_url.expose_secret())
        .stdin(Stdio::null());
    let output = tokio::time::timeout(SOON, command.output())
        .await
        .expect("it ends")
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let events: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(
        events,
        ["job.accepted", "job.waiting.configuration", "job.succeeded"],
        "{text}"
    );
    let row = world
        .store()
        .job_by_key(SOURCE, language.key)
        .await
        .expect("Postgres answers")
        .expect("a job");
    assert_eq!(row.state, JobState::Succeeded);
    worker.kill9().await;
    loses_patience(language).await;
}

async fn loses_patience(language: &Language) {
    let world = TestWorld::acme().await;
    let mut command = language
        .with_library()
        .await
        .expect("the library is installed");
    command
        .env("AMQP_URL", world.amqp_url.expose_secret())
        .env("PATIENCE_SECONDS", "1")
        .stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    assert_eq!(
        lines.next_line().await.expect("it is text").as_deref(),
        Some("out of patience")
    );
    wait_for("both messages to wait for a worker", SOON, async || {
        let [jobs, control] = [
            world.queue_depth("dispatch.jobs").await,
            world.queue_depth("dispatch.control").await,
        ];
        if jobs.ready == 1 && control.ready == 1 {
            Ok(())
        } else {
            Err(format!("{jobs:?}, {control:?}"))
        }
    })
    .await;
    let _worker = world.worker(&WorkerOptions::default());
    let mut last = String::new();
    while let Some(line) = tokio::time::timeout(SOON, lines.next_line())
        .await
        .expect("in time")
        .expect("it is text")
    {
        last = line;
    }
    assert_eq!(child.wait().await.expect("it was started").code(), Some(1));
    assert!(last.starts_with("job.cancelled"), "{last}");
}
