//! Failed attempts: what the HTTP client says, in the terms of [`Reason`].

use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError};

use super::{Reason, printable};

/// A failed attempt, before it is known whether it is the last.
#[derive(Debug)]
pub(in crate::registry) struct Failure {
    pub reason: Reason,
    pub retry: Retry,
}

/// Whether a failed attempt is worth another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::registry) enum Retry {
    No,
    /// Yes, after the time that the registry asks for, if it does.
    After(Option<Duration>),
}

impl Failure {
    /// Makes a failure that another try may not meet.
    pub fn passing(reason: Reason) -> Failure {
        Failure {
            reason,
            retry: Retry::After(None),
        }
    }

    /// Makes the failure of an exchange that ended in `error`.
    pub fn from_ureq(error: ureq::Error) -> Failure {
        use ureq::{Error, Timeout};
        match error {
            Error::Io(error) => Failure::from_io(error),
            Error::Rustls(error) => Failure::from_tls(&error),
            Error::HostNotFound => Reason::Unreachable("host not found".to_owned()).into(),
            Error::ConnectionFailed => Reason::Unreachable("connection failed".to_owned()).into(),
            Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                Reason::Unreachable("timed out".to_owned()).into()
            }
            Error::Timeout(_) => Failure::passing(Reason::Interrupted("timed out".to_owned())),
            Error::ConnectProxyFailed(text) => Reason::Proxy(printable(&text)).into(),
            Error::InvalidProxyUrl => Reason::Proxy("the setting is no URL".to_owned()).into(),
            // A connection that is cut within a header or a chunk surfaces as one of these.
            error @ (Error::Protocol(_) | Error::BodyStalled) => {
                Failure::passing(Reason::Interrupted(printable(&error.to_string())))
            }
            error => Reason::Malformed(printable(&error.to_string())).into(),
        }
    }

    /// Makes the failure of reading from or writing to a connection.
    pub fn from_io(error: io::Error) -> Failure {
        use io::ErrorKind as Kind;
        let error = match error.downcast::<ContentError>() {
            Ok(ContentError(error)) => return Reason::Content(error).into(),
            Err(error) => error,
        };
        let error = match error.downcast::<ureq::Error>() {
            Ok(error) => return Failure::from_ureq(error),
            Err(error) => error,
        };
        if let Some(error) = error.get_ref().and_then(|e| e.downcast_ref()) {
            return Failure::from_tls(error);
        }
        let text = printable(&error.to_string());
        match error.kind() {
            Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe
            | Kind::UnexpectedEof
            | Kind::TimedOut
            | Kind::WouldBlock
            | Kind::Interrupted => Failure::passing(Reason::Interrupted(text)),
            _ => Reason::Unreachable(text).into(),
        }
    }

    fn from_tls(error: &rustls::Error) -> Failure {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                Reason::Certificate("its issuer is unknown".to_owned()).into()
            }
            rustls::Error::InvalidCertificate(error) => {
                Reason::Certificate(printable(&error.to_string())).into()
            }
            rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired | AlertDescription::BadCertificate,
            ) => Reason::ClientCertificate.into(),
            rustls::Error::InvalidMessage(_) => Reason::NotTls.into(),
            error => Reason::Unreachable(format!("TLS: {}", printable(&error.to_string()))).into(),
        }
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Failure {
        Failure {
            reason,
            retry: Retry::No,
        }
    }
}

/// Marks an error of the content's source on its way through the HTTP client, so that it
/// is not taken for one of the connection.
#[derive(Debug, thiserror::Error)]
#[error("content")]
pub(in crate::registry) struct ContentError(#[source] pub io::Error);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_connections_are_final_and_resets_are_not() {
        let failure = |kind: io::ErrorKind| Failure::from_io(kind.into());
        let refused = failure(io::ErrorKind::ConnectionRefused);
        assert_eq!(refused.retry, Retry::No);
        assert!(matches!(refused.reason, Reason::Unreachable(_)));
        let reset = failure(io::ErrorKind::ConnectionReset);
        assert_eq!(reset.retry, Retry::After(None));
    }
}
