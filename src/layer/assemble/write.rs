//! Writes a planned layer. Workers take runs of entries and make both the files and the bytes
//! of the stream; these are hashed in order behind them, out of a bounded queue.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, futimens, mkdirat, utimensat};
use nix::unistd::{Gid, Uid, fchown, linkat, symlinkat};

use super::super::attributes::Tailor;
use super::super::chunks::Chunks;
use super::super::ownership::{Overrides, Ownership, Record};
use super::super::stat::{Device, FileKind, Stat};
use super::super::stream::{Part, Sink, StreamStats};
use super::super::view::Opener;
use super::super::{Call as _, LayerError, View, Xattrs, copy, dir, path, xattr};
use super::{Content, Plan, Planned};

/// Files up to this size are read into memory and written from there.
const SMALL: u64 = 256 << 10;
/// A worker takes this many entries, or bytes, at a time.
const RUN_ENTRIES: usize = 64;
const RUN_BYTES: u64 = 512 << 10;
/// How many runs may be done before the one that is to be hashed next.
const WINDOW: usize = 12;

/// What was made.
#[derive(Debug)]
pub struct Assembled {
    /// What the stream held.
    pub stats: StreamStats,
    /// Records of entries that can't have `user.*` attributes.
    pub overrides: Overrides,
    /// Whether the files were still what they had been when they were looked at.
    pub is_stable: bool,
}

/// What a worker makes of a run.
#[derive(Default)]
struct Made {
    part: Part,
    /// A large file at the end of the part, to be hashed from where it lies now.
    file: Option<(File, Vec<u8>, u64)>,
}

/// The runs that are made and wait for their turn.
#[derive(Default)]
struct Queue {
    /// The run that is hashed next.
    next: usize,
    ready: BTreeMap<usize, Made>,
    /// Emptied parts.
    spare: Vec<Part>,
    has_failed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    taken: AtomicUsize,
    unstable: AtomicBool,
    overrides: Mutex<Overrides>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'q>(&self, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        let waited = self.changed.wait(queue);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self) {
        self.queue().has_failed = true;
        self.changed.notify_all();
    }
}

/// Tells the others when a worker ends before its work does.
struct Alarm<'s> {
    shared: &'s Shared,
    is_armed: bool,
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if self.is_armed {
            self.shared.fail();
        }
    }
}

impl Plan<'_> {
    /// Writes the layer into the empty directory `root`, and its stream into `out`. `below` is
    /// what the root directory's attributes come from.
    pub fn write(
        &self,
        root: BorrowedFd<'_>,
        below: &View,
        ownership: Ownership,
        out: &mut dyn Chunks,
    ) -> Result<Assembled, LayerError> {
        let tailor = Tailor {
            ownership,
            now: self.now,
        };
        for planned in self.directories() {
            let name = &planned.path[..];
            mkdirat(root, name, Mode::S_IRWXU).call("mkdirat", name)?;
            let kind = FileKind::Directory;
            tailor.dress(
                (root, name),
                name,
                kind,
                Device::default(),
                &planned.attributes,
            )?;
        }
        let runs = self.runs();
        let shared = Shared::default();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let work = || {
            let mut worker = Worker {
                plan: self,
                root,
                tailor,
                shared: &shared,
                opener: None,
                parent: None,
                buffer: Vec::new(),
            };
            worker.work(&runs)
        };
        let mut sink = Sink::new(out);
        let result = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.min(runs.len()))
                .map(|_| scope.spawn(work))
                .collect();
            let hashed = hash(&shared, runs.len(), &mut sink);
            if hashed.is_err() {
                shared.fail();
            }
            let mut result = Ok(());
            for worker in workers {
                let ended = worker.join().unwrap_or_else(|panic| resume_unwind(panic));
                result = result.and(ended);
            }
            // A worker's error says more than that it has ended.
            result.and(hashed)
        });
        result?;
        let stats = sink.finish()?;
        let mut overrides = shared
            .overrides
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        for planned in &self.entries {
            if let Content::HardLink(first) = &planned.content {
                linkat(root, &first[..], root, &planned.path[..], AtFlags::empty())
                    .call("linkat", &planned.path)?;
                if let Some(record) = overrides.get(first).copied() {
                    overrides.insert(planned.path.clone(), record);
                }
            }
        }
        for planned in self.directories().rev() {
            let time = planned.mtime.spec();
            let flags = UtimensatFlags::NoFollowSymlink;
            utimensat(root, &planned.path[..], &time, &time, flags)
                .call("utimensat", &planned.path)?;
        }
        self.dress_root(root, below, tailor)?;
        Ok(Assembled {
            stats,
            overrides,
            is_stable: !shared.unstable.into_inner(),
        })
    }

    fn directories(&self) -> impl DoubleEndedIterator<Item = &Planned<'_>> {
        let entries = self.entries.iter();
        entries.filter(|planned| planned.kind == FileKind::Directory)
    }

    /// Gives the root directory what it has below, which is not part of the layer.
    fn dress_root(
        &self,
        root: BorrowedFd<'_>,
        below: &View,
        tailor: Tailor,
    ) -> Result<(), LayerError> {
        let node = below.root()?;
        let attributes = super::Attributes::of(&node.stat, below.xattrs(&node)?);
        let kind = FileKind::Directory;
        tailor.dress((root, b"."), b"", kind, Device::default(), &attributes)?;
        let time = node.stat.mtime.spec();
        utimensat(root, ".", &time, &time, UtimensatFlags::NoFollowSymlink).call("utimensat", b"")
    }

    /// Divides the entries into runs: their ends. A large file ends one.
    fn runs(&self) -> Vec<usize> {
        let mut ends = Vec::new();
        let (mut start, mut bytes) = (0, 0);
        for (index, planned) in self.entries.iter().enumerate() {
            bytes += planned.size();
            if bytes >= RUN_BYTES || index + 1 - start >= RUN_ENTRIES || planned.size() > SMALL {
                ends.push(index + 1);
                (start, bytes) = (index + 1, 0);
            }
        }
        if start < self.entries.len() {
            ends.push(self.entries.len());
        }
        ends
    }
}

impl Planned<'_> {
    fn size(&self) -> u64 {
        match &self.content {
            Content::File { node, .. } => node.stat.size,
            Content::Bytes(bytes) => bytes.len() as u64,
            _ => 0,
        }
    }
}

/// Hashes all runs in order. Ends early where a worker has failed.
fn hash(shared: &Shared, runs: usize, sink: &mut Sink<'_>) -> Result<(), LayerError> {
    for run in 0..runs {
        let mut made = {
            let mut queue = shared.queue();
            loop {
                if queue.has_failed {
                    return Ok(());
                }
                match queue.ready.remove(&run) {
                    Some(made) => break made,
                    None => queue = shared.wait(queue),
                }
            }
        };
        sink.append(&mut made.part)?;
        if let Some((file, path, size)) = &made.file {
            sink.content(file, path, *size, true)?;
        }
        let mut queue = shared.queue();
        queue.spare.push(made.part);
        queue.next = run + 1;
        drop(queue);
        shared.changed.notify_all();
    }
    Ok(())
}

struct Worker<'p, 's> {
    plan: &'p Plan<'p>,
    root: BorrowedFd<'p>,
    tailor: Tailor,
    shared: &'s Shared,
    /// For files of the view that was read last.
    opener: Option<(*const View, Opener<'p>)>,
    /// The directory that was written to last.
    parent: Option<(&'p [u8], OwnedFd)>,
    buffer: Vec<u8>,
}

impl<'p> Worker<'p, '_> {
    fn work(&mut self, runs: &[usize]) -> Result<(), LayerError> {
        let mut alarm = Alarm {
            shared: self.shared,
            is_armed: true,
        };
        loop {
            let run = self.shared.taken.fetch_add(1, Ordering::Relaxed);
            let Some(&end) = runs.get(run) else {
                alarm.is_armed = false;
                return Ok(());
            };
            let mut made = Made::default();
            {
                let mut queue = self.shared.queue();
                while run >= queue.next + WINDOW && !queue.has_failed {
                    queue = self.shared.wait(queue);
                }
                if queue.has_failed {
                    return Ok(());
                }
                made.part = queue.spare.pop().unwrap_or_default();
            }
            let start = run.checked_sub(1).map_or(0, |before| runs[before]);
            let plan = self.plan;
            for planned in &plan.entries[start..end] {
                self.make(planned, &mut made)?;
            }
            self.shared.queue().ready.insert(run, made);
            self.shared.changed.notify_all();
        }
    }

    fn make(&mut self, planned: &'p Planned<'p>, made: &mut Made) -> Result<(), LayerError> {
        let none = Xattrs::new();
        match &planned.content {
            Content::Directory => {
                planned.with_fields(0, &none, |fields| made.part.header(fields));
            }
            Content::Symlink(target) => {
                let (parent, name) = self.reach(planned)?;
                symlinkat(&target[..], parent, name).call("symlinkat", &planned.path)?;
                let xattrs = self.dress(planned)?;
                planned.with_fields(0, &xattrs, |fields| made.part.header(fields));
            }
            // It is made when its first name is sure to be there.
            Content::HardLink(_) => {
                planned.with_fields(0, &none, |fields| made.part.header(fields));
            }
            Content::Bytes(bytes) => {
                let hash = *blake3::hash(bytes).as_bytes();
                let mut target = self.create(planned)?;
                target.write_all(bytes).call("write", &planned.path)?;
                let xattrs = self.finish_file(planned, &target)?;
                planned.with_fields(bytes.len() as u64, &xattrs, |fields| {
                    made.part.file(fields, bytes, &hash);
                });
            }
            Content::File { view, node, hash } => {
                let source = self.open(view, node)?;
                let stat = nix::sys::stat::fstat(&source).call("fstat", &node.path)?;
                let stat = Stat::of_raw(&stat);
                let is_stable = (stat.ino, stat.size, stat.mtime, stat.ctime)
                    == (
                        node.stat.ino,
                        node.stat.size,
                        node.stat.mtime,
                        node.stat.ctime,
                    );
                if !is_stable {
                    self.shared.unstable.store(true, Ordering::Relaxed);
                }
                if node.stat.size > SMALL {
                    return self.copy_large(planned, &source, made);
                }
                self.copy_small(planned, source, is_stable.then_some(hash), made)?;
            }
        }
        Ok(())
    }

    /// Copies a file by way of memory, where the stream gets it from too.
    fn copy_small(
        &mut self,
        planned: &'p Planned<'p>,
        mut source: File,
        hash: Option<&[u8; 32]>,
        made: &mut Made,
    ) -> Result<(), LayerError> {
        let mut data = std::mem::take(&mut self.buffer);
        data.resize(usize::try_from(planned.size()).unwrap_or(0), 0);
        let mut filled = 0;
        while filled < data.len() {
            match source.read(&mut data[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LayerError::Read(error)),
            }
        }
        let is_whole = filled == data.len();
        data.truncate(filled);
        let hash = match hash {
            Some(hash) if is_whole => *hash,
            _ => {
                self.shared.unstable.store(true, Ordering::Relaxed);
                *blake3::hash(&data).as_bytes()
            }
        };
        let mut target = self.create(planned)?;
        target.write_all(&data).call("write", &planned.path)?;
        let xattrs = self.finish_file(planned, &target)?;
        planned.with_fields(data.len() as u64, &xattrs, |fields| {
            made.part.file(fields, &data, &hash);
        });
        self.buffer = data;
        Ok(())
    }

    /// Copies a file by shared extents where the file system can, with its holes.
    fn copy_large(
        &mut self,
        planned: &'p Planned<'p>,
        source: &File,
        made: &mut Made,
    ) -> Result<(), LayerError> {
        let target = self.create(planned)?;
        let size = copy::copy(source, &target).call("copy_file_range", &planned.path)?;
        let xattrs = self.finish_file(planned, &target)?;
        planned.with_fields(size, &xattrs, |fields| made.part.header(fields));
        made.file = Some((target, planned.path.clone(), size));
        Ok(())
    }

    fn create(&mut self, planned: &'p Planned<'p>) -> Result<File, LayerError> {
        let flags =
            OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let (parent, name) = self.reach(planned)?;
        let fd = openat(parent, name, flags, dir::private_mode()).call("openat", &planned.path)?;
        Ok(fd.into())
    }

    /// Gives a written file its attributes. Returns those of the extended ones that it took.
    fn finish_file(&mut self, planned: &'p Planned<'p>, file: &File) -> Result<Xattrs, LayerError> {
        let attributes = &planned.attributes;
        let stored = self.tailor.ownership.store(&Record {
            uid: attributes.uid,
            gid: attributes.gid,
            kind: FileKind::File,
            mode: attributes.mode & 0o7777,
            device: Device::default(),
        });
        if stored.record || !attributes.xattrs.is_empty() {
            return self.dress(planned);
        }
        let place = &planned.path;
        if let Some((uid, gid)) = stored.owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            fchown(file, Some(uid), Some(gid)).call("fchown", place)?;
        }
        fchmod(file, Mode::from_bits_truncate(stored.mode)).call("fchmod", place)?;
        let time = planned.mtime.spec();
        futimens(file, &time, &time).call("futimens", place)?;
        Ok(Xattrs::new())
    }

    fn dress(&mut self, planned: &'p Planned<'p>) -> Result<Xattrs, LayerError> {
        let tailor = self.tailor;
        let (parent, name) = self.reach(planned)?;
        let (kind, device) = (planned.kind, Device::default());
        let attributes = &planned.attributes;
        let dressed = tailor.dress((parent, name), &planned.path, kind, device, attributes)?;
        let xattrs = match attributes.xattrs.is_empty() {
            true => Xattrs::new(),
            // As they are now: some can't be stored, others are written in another form.
            false => xattr::read(parent, name, tailor.ownership)?,
        };
        if let Some(record) = dressed.record {
            let overrides = self.shared.overrides.lock();
            let mut overrides = overrides.unwrap_or_else(PoisonError::into_inner);
            overrides.insert(planned.path.clone(), record);
        }
        Ok(xattrs)
    }

    /// Returns the descriptor and the name through which an entry is reached.
    fn reach(
        &mut self,
        planned: &'p Planned<'p>,
    ) -> Result<(BorrowedFd<'_>, &'p [u8]), LayerError> {
        let (parent, name) = path::split(&planned.path);
        if !matches!(&self.parent, Some((path, _)) if *path == parent) {
            let fd = dir::open_parent(self.root, parent)?;
            self.parent = Some((parent, fd));
        }
        Ok(match &self.parent {
            Some((_, fd)) => (fd.as_fd(), name),
            None => (self.root, &planned.path),
        })
    }

    fn open(&mut self, view: &'p View, node: &super::Node) -> Result<File, LayerError> {
        if !matches!(&self.opener, Some((last, _)) if std::ptr::eq(*last, view)) {
            self.opener = Some((view, view.opener()));
        }
        match &mut self.opener {
            Some((_, opener)) => opener.open(node),
            None => view.open_file(node),
        }
    }
}
