//! Files that log records are appended to: the handle of log plugins. Actors write ([`Writers`]).
//!
//! All configurations that name one path share a queue and a writer, which live as long as one of them does.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::plugin::metrics::Metrics;
use crate::plugin::queue::{Queue, Terms};

/// Records that wait for one file at most, and their bytes.
const ENTRIES: usize = 10_000;
const BYTES: usize = 16 << 20;

/// One line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Without the line end. An empty one is not written.
    pub record: Bytes,
    /// The file is opened anew before this line.
    pub reopen: bool,
    /// Where the line belongs among those that are written together: workers put in theirs when they come to it.
    pub at: Instant,
}

/// Lines on their way to a file.
pub type Lines = Queue<Line>;

/// Who writes: started once for each path, works until the queue is closed and empty.
pub trait Writers: Send + Sync {
    fn start(&self, path: &str, lines: Arc<Lines>);
}

/// The files of a node.
#[derive(Default)]
pub struct Files {
    open: Mutex<Open>,
    writers: OnceLock<Box<dyn Writers>>,
}

#[derive(Default)]
struct Open {
    files: HashMap<String, Weak<File>>,
    /// Of these files, and of those that nobody writes to any more until all is written.
    queues: Vec<Weak<Lines>>,
}

/// One file, for those that write to it.
pub struct File {
    lines: Arc<Lines>,
}

impl File {
    /// Appends a record of that moment as a line, opening the file anew before it where that is asked. Never waits.
    pub fn append(&self, record: Bytes, at: Instant, reopen: bool) {
        let bytes = record.len() + 1;
        self.lines.push(Line { record, reopen, at }, bytes);
    }

    /// What waits to be written.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.lines.close();
    }
}

impl Files {
    /// Says who writes. Without writers, as in tests, lines stay in their queues.
    pub fn written_by(&self, writers: Box<dyn Writers>) {
        if self.writers.set(writers).is_err() {
            tracing::error!("writers of files are told twice");
        }
    }

    /// The file at a path, which is opened when the first line is written.
    pub fn file(&self, plugin: &'static str, path: &str, metrics: &Metrics) -> Arc<File> {
        let mut open = self.open.lock();
        if let Some(file) = open.files.get(path).and_then(Weak::upgrade) {
            return file;
        }
        open.files.retain(|_, file| file.strong_count() > 0);
        open.queues.retain(|lines| lines.strong_count() > 0);
        let terms = Terms { plugin, name: format!("{plugin} {path}"), entries: ENTRIES, bytes: BYTES };
        let lines = Arc::new(Queue::new(terms, metrics));
        if let Some(writers) = self.writers.get() {
            writers.start(path, Arc::clone(&lines));
        }
        open.queues.push(Arc::downgrade(&lines));
        let file = Arc::new(File { lines });
        open.files.insert(path.to_owned(), Arc::downgrade(&file));
        file
    }

    /// Has every file opened anew: after a rotation, when the node is told to reload.
    pub fn reopen(&self) {
        for lines in self.queues() {
            lines.push(Line { record: Bytes::new(), reopen: true, at: Instant::now() }, 0);
        }
    }

    /// Waits until everything is written, for so long at most; whether it is.
    pub async fn settled(&self, limit: Duration) -> bool {
        let started = Instant::now();
        let queues = self.queues();
        while !queues.iter().all(|lines| lines.is_idle()) {
            if started.elapsed() >= limit {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }

    fn queues(&self) -> Vec<Arc<Lines>> {
        self.open.lock().queues.iter().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_path_is_one_queue_for_as_long_as_it_is_used() {
        let (files, metrics) = (Files::default(), Metrics::default());
        let file = |path| files.file("file-log", path, &metrics);
        let (a, also_a, b) = (file("/tmp/a"), file("/tmp/a"), file("/tmp/b"));
        assert!(Arc::ptr_eq(&a, &also_a) && !Arc::ptr_eq(&a, &b));
        let lines = Arc::clone(&a.lines);
        drop(a);
        assert!(!lines.is_closed());
        drop(also_a);
        assert!(lines.is_closed());
        let again = file("/tmp/a");
        again.append("x".into(), Instant::now(), false);
        assert!(lines.is_idle() && !again.lines.is_closed());
        files.reopen();
        let taken = |file: &File| file.lines().take(9).into_iter().map(|line| (line.record, line.reopen)).collect::<Vec<_>>();
        assert_eq!(taken(&again), [("x".into(), false), ("".into(), true)]);
        assert_eq!(taken(&b), [("".into(), true)]);
    }
}
