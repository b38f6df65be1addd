//! What was written down beside a world's tables: by its workers, commands and simulator, and by the servers of the run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where private servers log, in the folder of their run.
const SERVERS: [&str; 3] = ["postgres", "rabbitmq", "rabbitmq/log"];
/// A line may have been half written when it was read last; so much before it is read again, in bytes.
const OVERLAP: u64 = 1024;

/// How far the servers' logs have been read, by whichever world.
static READ: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());

/// What the servers log while a world is there. They serve others, too, and their logs grow with a run: nobody reads all of it.
pub(super) struct ServersLogs {
    folder: Option<PathBuf>,
    /// How long each was when the world began.
    begun: BTreeMap<PathBuf, u64>,
}

impl ServersLogs {
    /// Of servers that log below a folder, if they were started here.
    pub(super) fn from_now_on(folder: Option<&Path>) -> Self {
        let folder = folder.map(Path::to_owned);
        let mut logs = Self { folder, begun: BTreeMap::new() };
        logs.begun = logs.paths().map(|path| (path.clone(), length(&path))).collect();
        logs
    }

    /// What was logged since, and what no world has read yet, by the names of the files.
    pub(super) fn read(&self) -> Vec<(String, String)> {
        let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
        let mut logs = Vec::new();
        for path in self.paths() {
            let begun = self.begun.get(&path).copied().unwrap_or_default();
            let from = begun.min(read.get(&path).copied().unwrap_or_default()).saturating_sub(OVERLAP);
            let mut bytes = Vec::new();
            let mut file = File::open(&path).expect("a log that reads");
            file.seek(SeekFrom::Start(from)).expect("a log is a file");
            file.read_to_end(&mut bytes).expect("a log that reads");
            read.insert(path.clone(), from + bytes.len() as u64);
            logs.push((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
        }
        logs
    }

    fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.folder.iter().flat_map(|folder| SERVERS.map(|at| folder.join(at))).flat_map(|folder| paths_in(&folder))
    }
}

/// The logs in a folder, whole, by their names.
pub(super) fn logs_in(folder: &Path) -> Vec<(String, String)> {
    let text = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).expect("a log that reads")).into_owned();
    paths_in(folder).iter().map(|path| (path.display().to_string(), text(path))).collect()
}

fn paths_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder with logs");
    let paths = entries.map(|entry| entry.expect("a folder that reads").path());
    let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log" || extension == "jsonl");
    paths.filter(is_log).collect()
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |about| about.len())
}

mod planted {
    use super::*;

    /// Long enough that what stands before is not read again.
    fn line(text: &str) -> String {
        format!("{text} {}\n", "-".repeat(2 * OVERLAP as usize))
    }

    #[test]
    fn each_line_of_a_server_s_log_is_read_by_some_world_and_by_each_that_was_there() {
        let folder = std::env::temp_dir().join(format!("logs-{}", uuid::Uuid::now_v7()));
        for at in SERVERS {
            std::fs::create_dir_all(folder.join(at)).expect("a folder");
        }
        let log = folder.join("rabbitmq/log/x.log");
        let say = |text: &str| {
            let so_far = std::fs::read_to_string(&log).unwrap_or_default();
            std::fs::write(&log, so_far + &line(text)).expect("a log");
        };
        let read = |logs: &ServersLogs| {
            let [(name, text)] = &logs.read()[..] else { panic!("one log") };
            assert!(name.ends_with("x.log"));
            ["before", "first", "second"].map(|word| text.contains(word))
        };
        say("before");
        let early = ServersLogs::from_now_on(Some(&folder));
        say("first");
        let late = ServersLogs::from_now_on(Some(&folder));
        assert_eq!(read(&late), [true, true, false], "what nobody has read");
        say("second");
        assert_eq!(read(&late), [false, false, true], "once");
        assert_eq!(read(&early), [false, true, true], "a secret of its own may stand there");
        assert!(ServersLogs::from_now_on(None).read().is_empty(), "they are somebody else's");
        std::fs::remove_dir_all(&folder).expect("it was made");
    }
}
