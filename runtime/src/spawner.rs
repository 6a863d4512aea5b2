//! The thread that all steps are cloned from. A death signal follows the thread, not the
//! process: were a step cloned from a worker thread, it would die with that worker.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};

type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs on a thread that lives as long as the process. Started at the first job, since
/// namespaces are entered before any thread.
#[derive(Default)]
pub(crate) struct Spawner {
    jobs: OnceLock<Mutex<Sender<Job>>>,
}

impl Spawner {
    /// Runs `job` on the thread, and returns what it returns.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let jobs = self.jobs.get_or_init(|| {
            let (sender, receiver) = channel::<Job>();
            std::thread::spawn(move || {
                for job in receiver {
                    job();
                }
            });
            Mutex::new(sender)
        });
        let (sender, receiver) = channel();
        let job: Job = Box::new(move || {
            // The other end waits for it below.
            let _ = sender.send(job());
        });
        jobs.lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .send(job)
            .expect("the thread ends only with the process");
        receiver.recv().expect("a job sends its result")
    }
}
