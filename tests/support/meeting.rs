//! Steps that wait for each other, and for the test.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Where steps meet: each connects, and none goes on before it is told to.
pub struct Meeting(TcpListener);

impl Meeting {
    /// Opens a place to meet.
    pub fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// Returns the command with which a step comes here and waits.
    pub fn command(&self) -> String {
        let port = self.0.local_addr().unwrap().port();
        format!("test \"$(nc 127.0.0.1 {port} </dev/null)\" = go")
    }

    /// Waits until so many steps are here.
    pub fn wait_for(&self, count: usize) -> Vec<TcpStream> {
        self.0.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut steps = Vec::new();
        while steps.len() < count {
            match self.0.accept() {
                Ok((step, _)) => {
                    step.set_nonblocking(false).unwrap();
                    steps.push(step);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let here = steps.len();
                    assert!(Instant::now() < deadline, "{here} of {count} steps came");
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("{error}"),
            }
        }
        steps
    }
}

impl Meeting {
    /// Tells whether a further step comes within a time.
    pub fn has_more(&self, within: Duration) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + within;
        while Instant::now() < deadline {
            if self.0.accept().is_ok() {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

/// Lets steps go on.
pub fn let_go(steps: Vec<TcpStream>) {
    for mut step in steps {
        step.write_all(b"go\n").unwrap();
        // It reads to the end, so that it must come.
        step.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = step.read(&mut [0]);
    }
}
