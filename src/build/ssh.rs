//! `--ssh`: the caller's SSH agent, or keys, for `RUN --mount=type=ssh`.
//!
//! A step gets a socket of its own. Of what it asks there, the list of keys and signatures
//! reach the agent; all else, such as adding or removing keys, is answered with a failure.
//! See <https://datatracker.ietf.org/doc/html/draft-ietf-sshm-ssh-agent>.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use kiln_runtime::{HostHelper, HostProcess};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::error::{Step, Trouble};
use super::secret::GivenError;
use crate::store::Session;

/// An agent that the caller gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    /// What mounts call it.
    pub id: String,
    /// A socket or private keys; none: the agent of the caller's environment.
    paths: Vec<PathBuf>,
}

impl FromStr for Ssh {
    type Err = GivenError;

    /// Reads `default`, `ID=SOCKET` or `ID=KEY[,KEY]`.
    fn from_str(text: &str) -> Result<Ssh, GivenError> {
        let (id, paths) = text.split_once('=').unwrap_or((text, ""));
        if id.is_empty() {
            return Err(GivenError {
                flag: "--ssh",
                text: text.to_owned(),
                problem: "it has no id".to_owned(),
                hint: "it is default, or ID=SOCKET, or ID=KEY[,KEY]",
            });
        }
        let paths = paths.split(',').filter(|path| !path.is_empty());
        Ok(Ssh {
            id: id.to_owned(),
            paths: paths.map(PathBuf::from).collect(),
        })
    }
}

/// An agent that answers.
pub(super) struct Agent {
    socket: PathBuf,
    /// Where kiln started it: it ends with this.
    _process: Option<HostProcess>,
}

/// Returns the agent of an id; nothing where none was given and none is required.
pub(super) fn find(
    host: &HostHelper,
    session: &Session,
    given: &[Ssh],
    id: &str,
    required: bool,
) -> Step<Option<Agent>> {
    let Some(ssh) = given.iter().rfind(|ssh| ssh.id == id) else {
        if !required {
            return Ok(None);
        }
        return Err(Trouble::hinted(
            format!("the SSH agent {id:?} is required, and was not given"),
            format!("give it with --ssh {id} (the agent of SSH_AUTH_SOCK) or --ssh {id}=KEY"),
        ));
    };
    let is_socket =
        |path: &PathBuf| std::fs::metadata(path).map(|metadata| metadata.file_type().is_socket());
    match ssh.paths.as_slice() {
        [] => match std::env::var_os("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty()) {
            Some(socket) => Ok(Some(Agent {
                socket: socket.into(),
                _process: None,
            })),
            None => Err(Trouble::hinted(
                format!("--ssh {id} means the agent of SSH_AUTH_SOCK, which is not set"),
                format!("start one (eval $(ssh-agent); ssh-add), or give a key: --ssh {id}=KEY"),
            )),
        },
        paths => {
            let mut sockets = 0;
            for path in paths {
                let found = is_socket(path).map_err(|error| {
                    Trouble::new(format!(
                        "cannot open --ssh {id}={}: {error}",
                        path.display()
                    ))
                })?;
                sockets += usize::from(found);
            }
            match (sockets, paths) {
                (1, [socket]) => Ok(Some(Agent {
                    socket: socket.clone(),
                    _process: None,
                })),
                (0, keys) => start(host, session, id, keys).map(Some),
                _ => Err(Trouble::new(format!(
                    "--ssh {id}=… takes one socket, or keys"
                ))),
            }
        }
    }
}

/// The longest path that a socket can have here, in bytes.
const SOCKET_PATH: usize = 107;

/// Starts an agent for keys.
fn start(host: &HostHelper, session: &Session, id: &str, keys: &[PathBuf]) -> Step<Agent> {
    let missing = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Trouble::hinted(
            "ssh-agent is not installed, and keys given by --ssh are not used without it",
            "install the package openssh-client",
        ),
        _ => Trouble::new(format!("cannot start ssh-agent: {error}")),
    };
    // With the session, its socket goes whatever happens; else it is where ssh-agent puts it.
    let place = session.file()?;
    let place = place.to_str().filter(|path| path.len() <= SOCKET_PATH);
    let args: Vec<&str> = match place {
        Some(path) => vec!["-s", "-a", path],
        None => vec!["-s"],
    };
    let output = host.run("ssh-agent", &args, b"").map_err(missing)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = |name: &str| {
        let (_, after) = text.split_once(&format!("{name}="))?;
        after.split([';', '\n']).next().map(str::to_owned)
    };
    let (Some(socket), Some(pid)) = (
        value("SSH_AUTH_SOCK"),
        value("SSH_AGENT_PID").and_then(|pid| pid.parse::<i32>().ok()),
    ) else {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Trouble::new(format!("ssh-agent did not start: {stderr}")));
    };
    let process = host
        .adopt(pid)
        .map_err(|error| Trouble::new(format!("ssh-agent has ended: {error}")))?;
    for key in keys {
        let path = std::path::absolute(key).unwrap_or_else(|_| key.clone());
        let variable = format!("SSH_AUTH_SOCK={socket}");
        // `--` does not end the options of every ssh-add: an absolute path is none.
        let path = path.to_string_lossy();
        let args = [variable.as_str(), "ssh-add", "-q", &path];
        let output = host.run("env", &args, b"").map_err(missing)?;
        if output.code != Some(0) {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let reason = stderr.trim().lines().last().unwrap_or("it says nothing");
            return Err(Trouble::hinted(
                format!("cannot use the key --ssh {id}={}: {reason}", key.display()),
                "a key with a passphrase is given by way of an agent: ssh-add it, then --ssh default; \
                 a key that others can read is refused: chmod 600",
            ));
        }
    }
    Ok(Agent {
        socket: socket.into(),
        _process: Some(process),
    })
}

/// No message of the protocol is larger, in bytes: OpenSSH's own limit.
const MESSAGE_LIMIT: usize = 256 << 10;

/// How many connections a step may have at once.
const CONNECTIONS: usize = 64;

const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;

/// `SSH_AGENT_FAILURE` as a whole message.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

type Open = Arc<Mutex<BTreeMap<u64, Vec<UnixStream>>>>;

/// A socket that is being served, until this is dropped.
pub(super) struct Forwarding {
    stop: Option<OwnedFd>,
    server: Option<JoinHandle<()>>,
    open: Open,
}

impl Forwarding {
    /// Starts to serve a socket with what an agent may be asked.
    pub(super) fn start(listener: UnixListener, agent: Agent) -> io::Result<Forwarding> {
        let (stopped, stop) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        listener.set_nonblocking(true)?;
        let open = Open::default();
        let connections = open.clone();
        let server = std::thread::spawn(move || serve(&listener, &stopped, &agent, &connections));
        Ok(Forwarding {
            stop: Some(stop),
            server: Some(server),
            open,
        })
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in open.values().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve(listener: &UnixListener, stopped: &OwnedFd, agent: &Agent, open: &Open) {
    for number in 0.. {
        let mut fds = [
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
        ];
        if poll(&mut fds, PollTimeout::NONE).is_err() {
            continue;
        }
        if fds[0].any().unwrap_or(true) {
            return;
        }
        let Ok((client, _)) = listener.accept() else {
            continue;
        };
        let lock = || open.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().len() >= CONNECTIONS {
            continue;
        }
        let connected = UnixStream::connect(&agent.socket).and_then(|upstream| {
            client.set_nonblocking(false)?;
            lock().insert(number, vec![client.try_clone()?, upstream.try_clone()?]);
            Ok(upstream)
        });
        // Without an agent the client sees the end of the connection.
        let Ok(upstream) = connected else { continue };
        let connections = open.clone();
        std::thread::spawn(move || {
            let _ = forward(&client, &upstream);
            let mut open = connections.lock().unwrap_or_else(PoisonError::into_inner);
            open.remove(&number);
        });
    }
}

/// Passes messages on until one side closes, or says what is no message.
fn forward(mut client: &UnixStream, mut agent: &UnixStream) -> io::Result<()> {
    while let Some(request) = receive(client)? {
        // Length and type.
        let allowed = matches!(request.get(4), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)));
        if !allowed {
            client.write_all(&FAILURE)?;
            continue;
        }
        agent.write_all(&request)?;
        match receive(agent)? {
            Some(reply) => client.write_all(&reply)?,
            None => break,
        }
    }
    client.shutdown(Shutdown::Both)
}

/// Receives one message with its length; nothing at the end of the stream.
fn receive(mut stream: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut message = vec![0; 4];
    match stream.read_exact(&mut message) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_be_bytes([message[0], message[1], message[2], message[3]]) as usize;
    if length == 0 || length > MESSAGE_LIMIT {
        return Err(io::ErrorKind::InvalidData.into());
    }
    message.resize(4 + length, 0);
    stream.read_exact(&mut message[4..])?;
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_as_docker_writes_them() {
        let ssh = |text: &str| text.parse::<Ssh>().unwrap();
        assert_eq!(
            (ssh("default").id.as_str(), ssh("default").paths.len()),
            ("default", 0)
        );
        assert_eq!(ssh("a=/x,/y").paths, [PathBuf::from("/x"), "/y".into()]);
        assert_eq!("=/x".parse::<Ssh>().unwrap_err().problem, "it has no id");
    }

    /// Sends requests through a forwarding; the agent behind it echoes types as replies.
    fn replies(requests: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        let directory = tempfile::tempdir().unwrap();
        let (ours, theirs) = (
            directory.path().join("ours"),
            directory.path().join("theirs"),
        );
        let agent = UnixListener::bind(&theirs).unwrap();
        std::thread::spawn(move || {
            for stream in agent.incoming().flatten() {
                while let Ok(Some(request)) = receive(&stream) {
                    let _ = (&stream).write_all(&[0, 0, 0, 2, 100, request[4]]);
                }
            }
        });
        let agent = Agent {
            socket: theirs,
            _process: None,
        };
        let forwarding = Forwarding::start(UnixListener::bind(&ours).unwrap(), agent).unwrap();
        let mut client = UnixStream::connect(&ours).unwrap();
        let mut found = Vec::new();
        for request in requests {
            client.write_all(request).unwrap();
            found.push(receive(&client).unwrap());
        }
        drop(forwarding);
        // Then the connection is closed.
        assert!(matches!(receive(&client), Ok(None) | Err(_)));
        found
    }

    #[test]
    fn list_and_sign_reach_the_agent_and_nothing_else_does() {
        let found = replies(&[
            &[0, 0, 0, 1, 11],
            &[0, 0, 0, 3, 13, 1, 2],
            &[0, 0, 0, 1, 19],
            &[0, 0, 0, 2, 17, 0],
            &[0, 0, 0, 1, 27],
            &[0, 0, 0, 1, 11],
        ]);
        let (list, sign) = (vec![0, 0, 0, 2, 100, 11], vec![0, 0, 0, 2, 100, 13]);
        let failure = Some(FAILURE.to_vec());
        assert_eq!(
            found,
            [
                Some(list.clone()),
                Some(sign),
                failure.clone(),
                failure.clone(),
                failure,
                Some(list)
            ]
        );
    }

    #[test]
    fn a_message_without_end_closes_the_connection() {
        assert!(receive(&[0xff, 0xff, 0xff, 0xff, 11][..]).is_err());
        assert!(receive(&[0, 0, 0, 0][..]).is_err());
        assert!(receive(&[0, 0, 0, 9, 11][..]).is_err());
        assert_eq!(receive(&[][..]).unwrap(), None);
    }
}
