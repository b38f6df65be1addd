//! A scripted SMTP server for the tests of this module. It serves one dialogue on loopback, and
//! replies as the script states, otherwise with success.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The action instead of a successful reply.
#[derive(Debug, Clone, Copy)]
pub(super) enum Act {
    /// Reply with this line.
    Say(&'static str),
    /// Close the connection without a reply.
    Close,
    /// Keep the connection open without a reply until the client closes it.
    Hang,
}

/// A server that follows a script.
pub(super) struct ScriptedSmtp {
    pub(super) url: String,
    received: Arc<Mutex<Vec<String>>>,
}

impl ScriptedSmtp {
    /// Starts a server with an action for each verb (`""` is the greeting, `.` the end of the
    /// content), or for lines that begin with a text (`RCPT TO:<ann`).
    pub(super) fn start(acts: Vec<(&'static str, Act)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&received);
        std::thread::spawn(move || {
            if let Ok((stream, _)) = listener.accept() {
                drop(converse(stream, &acts, &log));
            }
        });
        Self { url, received }
    }

    /// Returns every received line.
    pub(super) fn received(&self) -> Vec<String> {
        self.received.lock().unwrap().clone()
    }
}

fn converse(
    mut stream: TcpStream,
    acts: &[(&'static str, Act)],
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut said = String::new();
    loop {
        let verb = said.split([' ', ':']).next().unwrap_or_default();
        let is_meant = |at: &str| at == verb || (at.contains(':') && said.starts_with(at));
        match acts
            .iter()
            .find(|(at, _)| is_meant(at))
            .map(|(_, act)| *act)
        {
            Some(Act::Say(reply)) => write!(stream, "{reply}\r\n")?,
            Some(Act::Close) => return Ok(()),
            Some(Act::Hang) => return stream.read(&mut [0; 64]).map(drop),
            None => stream.write_all(friendly(verb))?,
        }
        let in_content = verb == "DATA";
        loop {
            let Some(line) = lines.next().transpose()? else {
                return Ok(());
            };
            log.lock().unwrap().push(line.clone());
            if !in_content || line == "." {
                said = line;
                break;
            }
        }
    }
}

fn friendly(verb: &str) -> &'static [u8] {
    match verb {
        "" => b"220 ready\r\n",
        "EHLO" => b"250-hello\r\n250 AUTH PLAIN LOGIN\r\n",
        "AUTH" => b"235 welcome\r\n",
        "DATA" => b"354 go on\r\n",
        "QUIT" => b"221 bye\r\n",
        _ => b"250 fine\r\n",
    }
}
