//! Writes log records to a file: one actor a path, the work itself on threads that may block.
//!
//! Lines that come close together are written with one call, in order. A file that cannot be opened or written costs the
//! lines of that moment, which are counted, and a line in the log; the next ones try again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use actix_rt::ArbiterHandle;
use nix::fcntl::OFlag;

use crate::actors::supervise::supervise;
use crate::plugin::files::{Line, Lines, Writers};

/// Lines that come within this time are written together.
const GATHER: Duration = Duration::from_millis(5);
/// Lines that are written with one call at most.
const TOGETHER: usize = 1000;
/// Memory that is kept from one write to the next.
const KEPT: usize = 1 << 20;
/// How long a pipe or a terminal that takes nothing is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a file that stays unwritable is named in the log.
const REMIND: Duration = Duration::from_secs(60);
/// Permissions of a file that is made: `rw-r--r--`, less what the umask takes.
const MODE: u32 = 0o644;

/// Starts the writers, on an arbiter of their own or of others.
pub struct FileWriters(pub ArbiterHandle);

impl Writers for FileWriters {
    fn start(&self, path: &str, lines: Arc<Lines>) {
        let path: Arc<str> = path.into();
        let _ = supervise("file log", &self.0, 1, move || FileLog { path: path.clone(), lines: lines.clone() });
    }
}

/// The writer of one file.
struct FileLog {
    path: Arc<str>,
    lines: Arc<Lines>,
}

impl Actor for FileLog {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        let work = work(Arc::clone(&self.path), Arc::clone(&self.lines));
        context.spawn(work.into_actor(self).map(|(), _, context| context.stop()));
    }
}

/// Writes until the queue is closed and empty.
async fn work(path: Arc<str>, lines: Arc<Lines>) {
    let mut output = Output::new(Arc::clone(&path));
    loop {
        lines.ready().await;
        if !lines.is_closed() {
            tokio::time::sleep(GATHER).await;
        }
        let mut batch = lines.take(TOGETHER);
        if batch.is_empty() {
            return;
        }
        // a worker may have been held up before it put in what it had answered long ago
        batch.sort_by_key(|line| line.at);
        let records = batch.iter().filter(|line| !line.record.is_empty()).count() as u64;
        let write = move || {
            let written = output.write(&batch);
            (output, written)
        };
        let written;
        (output, written) = match actix_rt::task::spawn_blocking(write).await {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(%error, queue = lines.name(), "a write of log records broke off");
                (Output::new(Arc::clone(&path)), 0)
            }
        };
        lines.counts().written.inc_by(written);
        lines.counts().failed.inc_by(records - written);
        lines.settled();
    }
}

/// A file and what is known of it.
struct Output {
    path: Arc<str>,
    file: Option<File>,
    text: Vec<u8>,
    /// The last write broke off within a line.
    torn: bool,
    /// When it was last said that the file cannot be written.
    told: Option<Instant>,
}

impl Output {
    fn new(path: Arc<str>) -> Self {
        Self { path, file: None, text: Vec::new(), torn: false, told: None }
    }

    /// Writes lines; how many of them are in the file.
    fn write(&mut self, lines: &[Line]) -> u64 {
        if lines.iter().any(|line| line.reopen) {
            self.file = None;
        }
        self.text.clear();
        if self.torn {
            self.text.push(b'\n');
        }
        let start = self.text.len();
        for line in lines.iter().filter(|line| !line.record.is_empty()) {
            self.text.extend_from_slice(&line.record);
            self.text.push(b'\n');
        }
        if self.text.len() == start {
            return 0;
        }
        let (done, result) = match open(&mut self.file, &self.path) {
            Ok(file) => write_all(file, &self.text),
            Err(error) => (0, Err(error)),
        };
        if done > 0 {
            self.torn = self.text[done - 1] != b'\n';
        }
        let written = memchr::memchr_iter(b'\n', &self.text[start.min(done)..done]).count() as u64;
        if self.text.capacity() > KEPT {
            self.text = Vec::new();
        }
        match result {
            Ok(()) => {
                if self.told.take().is_some() {
                    tracing::info!(path = &*self.path, "log records are written again");
                }
            }
            Err(error) => {
                self.file = None;
                if self.told.is_none_or(|told| told.elapsed() >= REMIND) {
                    self.told = Some(Instant::now());
                    tracing::error!(%error, path = &*self.path, "log records cannot be written");
                }
            }
        }
        written
    }
}

/// The file that is open, or opens it.
fn open<'f>(file: &'f mut Option<File>, path: &str) -> io::Result<&'f File> {
    let opened = match file.take() {
        Some(file) => file,
        // a pipe that nobody reads must not hold the thread; files take no notice
        None => OpenOptions::new().append(true).create(true).mode(MODE).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?,
    };
    Ok(file.insert(opened))
}

/// Writes everything, or as much as can be written; how many bytes that is.
fn write_all(mut file: impl Write, text: &[u8]) -> (usize, io::Result<()>) {
    let (mut done, mut stuck) = (0, None::<Instant>);
    while done < text.len() {
        match file.write(&text[done..]) {
            Ok(0) => return (done, Err(io::ErrorKind::WriteZero.into())),
            Ok(n) => {
                done += n;
                stuck = None;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if stuck.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                    return (done, Err(error));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return (done, Err(error)),
        }
    }
    (done, Ok(()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use actix_rt::Arbiter;

    use super::*;
    use crate::plugin::files::Files;
    use crate::plugin::metrics::Metrics;

    fn line(record: &'static str) -> Line {
        Line { record: record.into(), reopen: false, at: Instant::now() }
    }

    async fn settled(files: &Files) {
        assert!(files.settled(Duration::from_secs(30)).await, "the writer has stopped");
    }

    #[actix_rt::test]
    async fn records_are_appended_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let (files, metrics) = (Files::default(), Metrics::default());
        files.written_by(Box::new(FileWriters(Arbiter::current())));
        let file = files.file("file-log", path.to_str().expect("a path is text"), &metrics);
        assert!(!path.exists(), "opened with the first line");
        for n in 0..2500 {
            file.append(format!("{{\"n\":{n}}}").into(), Instant::now(), false);
        }
        settled(&files).await;
        let text = std::fs::read_to_string(&path).expect("the file");
        assert!(text.lines().eq((0..2500).map(|n| format!("{{\"n\":{n}}}"))) && text.ends_with("}\n"));
        assert_eq!(std::fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o644);
        assert_eq!(metrics.log_records_written().with_label_values(&["file-log"]).get(), 2500);
    }

    /// A record that comes late stands where it belongs, among those that are written together.
    #[actix_rt::test]
    async fn what_comes_late_is_put_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let (files, metrics) = (Files::default(), Metrics::default());
        files.written_by(Box::new(FileWriters(Arbiter::current())));
        let file = files.file("file-log", path.to_str().expect("a path is text"), &metrics);
        let start = Instant::now();
        for (record, at) in [("b", 2), ("c", 3), ("a", 1), ("d", 3)] {
            file.append(record.into(), start + Duration::from_millis(at), false);
        }
        settled(&files).await;
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "a\nb\nc\nd\n");
    }

    #[actix_rt::test]
    async fn rotation() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, moved) = (folder.path().join("log"), folder.path().join("log.1"));
        let (files, metrics) = (Files::default(), Metrics::default());
        files.written_by(Box::new(FileWriters(Arbiter::current())));
        let file = files.file("file-log", path.to_str().expect("a path is text"), &metrics);
        let append = async |record: &'static str, reopen| {
            file.append(record.into(), Instant::now(), reopen);
            settled(&files).await;
        };
        append("a", false).await;
        std::fs::rename(&path, &moved).expect("rotated");
        append("b", false).await;
        append("c", true).await;
        std::fs::remove_file(&path).expect("removed");
        files.reopen();
        append("d", false).await;
        let read = |path| std::fs::read_to_string(path).expect("a file");
        assert_eq!((read(&moved), read(&path)), ("a\nb\n".to_owned(), "d\n".to_owned()));
    }

    #[actix_rt::test]
    async fn a_path_that_cannot_be_opened_costs_records_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (files, metrics) = (Files::default(), Metrics::default());
        files.written_by(Box::new(FileWriters(Arbiter::current())));
        let path = folder.path().join("later/log");
        let file = files.file("file-log", path.to_str().expect("a path is text"), &metrics);
        file.append("lost".into(), Instant::now(), false);
        settled(&files).await;
        assert_eq!(metrics.log_records_dropped().with_label_values(&["file-log", "sink failed"]).get(), 1);
        std::fs::create_dir(folder.path().join("later")).expect("a folder");
        file.append("found".into(), Instant::now(), false);
        settled(&files).await;
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "found\n");
        assert_eq!(metrics.log_records_written().with_label_values(&["file-log"]).get(), 1);
    }

    #[actix_rt::test]
    async fn the_writer_ends_with_the_last_who_writes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let (files, metrics) = (Files::default(), Metrics::default());
        files.written_by(Box::new(FileWriters(Arbiter::current())));
        let file = files.file("file-log", path.to_str().expect("a path is text"), &metrics);
        file.append("last".into(), Instant::now(), false);
        drop(file);
        while metrics.text().contains("troop_queue_entries{") {
            actix_rt::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "last\n");
    }

    /// Takes so many bytes, then is full.
    struct Disk {
        room: usize,
        held: Vec<u8>,
    }

    impl Write for &mut Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let n = bytes.len().min(self.room - self.held.len()).min(3);
            if n == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.held.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_write_that_breaks_off_says_how_far_it_came() {
        let mut disk = Disk { room: 7, held: Vec::new() };
        let (done, result) = write_all(&mut disk, b"one\ntwo\nthree\n");
        assert_eq!((done, result.map_err(|error| error.kind())), (7, Err(io::ErrorKind::StorageFull)));
        assert_eq!(disk.held, b"one\ntwo");
    }

    /// A device that is always full takes nothing; the records count as dropped.
    #[test]
    fn a_full_disk() {
        let mut output = Output::new("/dev/full".into());
        assert_eq!(output.write(&[line("a"), line("b")]), 0);
        assert!(output.told.is_some() && !output.torn);
    }

    #[test]
    fn a_torn_line_is_ended_before_the_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        std::fs::write(&path, "{\"half").expect("written");
        let mut output = Output { torn: true, ..Output::new(path.to_str().expect("a path is text").into()) };
        assert_eq!(output.write(&[line("a"), line(""), line("b")]), 2);
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "{\"half\na\nb\n");
    }

    /// A pipe without a reader neither holds the thread nor ends anything.
    #[test]
    fn a_pipe_that_nobody_reads() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        assert_eq!(Output::new(path.to_str().expect("a path is text").into()).write(&[line("a")]), 0);
    }
}
