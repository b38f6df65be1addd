//! The log files of a world: those of its workers, commands and simulator, and those of the
//! servers of the run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The log folders of private servers, below the folder of their run.
const SERVERS: [&str; 3] = ["postgres", "rabbitmq", "rabbitmq/log"];
/// The number of bytes that are read again, as the last line may have been incomplete when it was
/// read.
const OVERLAP: u64 = 1024;

/// The position up to which any world has read each server log.
static READ: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());

/// What the servers log during the life of a world. Their logs grow with the run, so no world
/// reads them whole.
pub(super) struct ServersLogs {
    folder: Option<PathBuf>,
    /// The length of each log when the world was created.
    begun: BTreeMap<PathBuf, u64>,
}

impl ServersLogs {
    /// Starts at the current end of the logs below `folder`; without a folder, the servers are not
    /// private and have no logs here.
    pub(super) fn from_now_on(folder: Option<&Path>) -> Self {
        let folder = folder.map(Path::to_owned);
        let mut logs = Self {
            folder,
            begun: BTreeMap::new(),
        };
        logs.begun = logs
            .paths()
            .map(|path| (path.clone(), length(&path)))
            .collect();
        logs
    }

    /// Returns what was logged since the start and what no world has read yet, by file name.
    pub(super) fn read(&self) -> Vec<(String, String)> {
        let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
        let mut logs = Vec::new();
        for path in self.paths() {
            let begun = self.begun.get(&path).copied().unwrap_or_default();
            let from = begun
                .min(read.get(&path).copied().unwrap_or_default())
                .saturating_sub(OVERLAP);
            let mut bytes = Vec::new();
            let mut file = File::open(&path).expect("a readable log");
            file.seek(SeekFrom::Start(from)).expect("a log is a file");
            file.read_to_end(&mut bytes).expect("a readable log");
            read.insert(path.clone(), from + bytes.len() as u64);
            logs.push((
                path.display().to_string(),
                String::from_utf8_lossy(&bytes).into_owned(),
            ));
        }
        logs
    }

    fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.folder
            .iter()
            .flat_map(|folder| SERVERS.map(|at| folder.join(at)))
            .flat_map(|folder| paths_in(&folder))
    }
}

/// Returns the logs of a folder with their whole text, by file name.
pub(super) fn logs_in(folder: &Path) -> Vec<(String, String)> {
    let text = |path: &Path| {
        String::from_utf8_lossy(&std::fs::read(path).expect("a readable log")).into_owned()
    };
    paths_in(folder)
        .iter()
        .map(|path| (path.display().to_string(), text(path)))
        .collect()
}

fn paths_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder with logs");
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    let is_log = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| extension == "log" || extension == "jsonl")
    };
    paths.filter(is_log).collect()
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |about| about.len())
}

mod planted {
    use super::*;

    /// Returns a line that is longer than the overlap, so that earlier lines are not read again.
    fn line(text: &str) -> String {
        format!("{text} {}\n", "-".repeat(2 * OVERLAP as usize))
    }

    #[test]
    fn each_line_of_a_server_log_is_read_by_at_least_one_world_and_by_every_world_open_at_the_time()
    {
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
            let [(name, text)] = &logs.read()[..] else {
                panic!("one log")
            };
            assert!(name.ends_with("x.log"));
            ["before", "first", "second"].map(|word| text.contains(word))
        };
        say("before");
        let early = ServersLogs::from_now_on(Some(&folder));
        say("first");
        let late = ServersLogs::from_now_on(Some(&folder));
        assert_eq!(
            read(&late),
            [true, true, false],
            "lines that no world has read"
        );
        say("second");
        assert_eq!(read(&late), [false, false, true], "each line once");
        assert_eq!(
            read(&early),
            [false, true, true],
            "they may contain a secret of this world"
        );
        assert!(
            ServersLogs::from_now_on(None).read().is_empty(),
            "the servers are not private"
        );
        std::fs::remove_dir_all(&folder).expect("the folder exists");
    }
}
