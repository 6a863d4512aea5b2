//! Reading blobs: streamed, counted, hashed, and resumed where the connection breaks.

use std::io::{self, Read};

use ureq::BodyReader;
use ureq::http::{Method, StatusCode, header};

use super::client::{Client, Progress, Subject, Target, refuse};
use super::error::{Failure, Reason, RegistryError, Retry};
use super::retry::Backoff;
use super::transport::{Payload, header_text};
use crate::image::{Descriptor, Digest, Hasher, Reference};

/// So much has to come before a cut for the retries to start anew: a registry that gives a
/// byte per connection must come to an end, a long download over a bad line must not.
const PROGRESS_THAT_COUNTS: u64 = 64 << 10;

impl Client {
    /// Opens a blob. What is read from the result is verified: see [`BlobReader`].
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<BlobReader, RegistryError> {
        let object = format!("blob {}", descriptor.digest);
        let read =
            |subject: &Subject| self.retrying(subject, || open(self, subject, descriptor, 0));
        let (body, subject, further) = self.read_from_sources(reference, &object, read)?;
        Ok(BlobReader {
            client: self.clone(),
            backoff: self.backoff(&subject),
            subject,
            further: further.into_iter(),
            descriptor: descriptor.clone(),
            state: State::Reading,
            body: Some(body),
            hasher: Hasher::new(descriptor.digest.algorithm()),
            received: 0,
            opened_at: 0,
            progress: None,
        })
    }

    /// Tells whether the repository of `reference` has a blob.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn blob_exists(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        let subject = self.written(reference, &format!("blob {digest}"))?;
        self.retrying(&subject, || self.has_blob(&subject, digest))
    }

    pub(super) fn has_blob(&self, subject: &Subject, digest: &Digest) -> Result<bool, Failure> {
        let path = format!("/v2/{}/blobs/{digest}", subject.repository);
        let target = Target::Path(&path);
        let answer = self.attempt(subject, &Method::HEAD, target, &[], &mut Payload::Empty)?;
        match answer.response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(refuse(answer.response)),
        }
    }
}

/// A blob as it arrives.
///
/// The last bytes are given out only once the digest and the size of the whole have proved
/// right: who has read all bytes of the descriptor's size has the blob. An error of the
/// registry is carried by the [`io::Error`]: [`RegistryError::in_io_error`] finds it.
pub struct BlobReader {
    client: Client,
    subject: Subject,
    /// Where it goes on if it breaks off for good.
    further: std::vec::IntoIter<Subject>,
    descriptor: Descriptor,
    state: State,
    /// The body of the connection, if there is one.
    body: Option<Body>,
    hasher: Hasher,
    received: u64,
    /// How much had come when the connection was opened.
    opened_at: u64,
    backoff: Backoff,
    progress: Option<Progress>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    Verified,
    Failed,
}

impl BlobReader {
    /// Sets who is told how far the download is.
    pub fn with_progress(mut self, progress: Progress) -> BlobReader {
        self.progress = Some(progress);
        self
    }

    /// Returns what is being read.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Reads what a consumer left, so that the digest is checked even where a decompressor
    /// has seen its end of stream early.
    ///
    /// # Errors
    /// See [`RegistryError`]; [`BlobReader::read`] has the same.
    pub fn finish(mut self) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink()).map(drop)
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let body = match &mut self.body {
            Some(body) => body,
            None => {
                let body = open(&self.client, &self.subject, &self.descriptor, self.received)?;
                self.body.insert(body)
            }
        };
        let left = self.descriptor.size - self.received;
        let most = buffer
            .len()
            .min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut count = 0;
        if most > 0 {
            count = body.read(&mut buffer[..most])?;
            if count == 0 {
                return Err(body.ended_early(&self.descriptor, self.received));
            }
            self.received += count as u64;
            self.hasher.update(&buffer[..count]);
            if let Some(progress) = &self.progress {
                progress(self.received);
            }
        }
        if self.received == self.descriptor.size {
            self.conclude()?;
        }
        Ok(count)
    }

    /// Goes on at the next source, unless there is none, or what came is no beginning of the
    /// blob.
    fn turn_to_next(&mut self, failure: Failure) -> io::Result<()> {
        let spoilt = matches!(
            failure.reason,
            Reason::WrongDigest { .. } | Reason::TooLong { .. }
        );
        let next = if spoilt { None } else { self.further.next() };
        let Some(next) = next else {
            self.state = State::Failed;
            return Err(self.subject.error(failure.reason).into_io());
        };
        self.client
            .note_failed_mirror(&self.subject, &failure.reason);
        self.backoff = self.client.backoff(&next);
        self.subject = next;
        Ok(())
    }

    /// Checks the whole: its digest, and that nothing follows.
    fn conclude(&mut self) -> Result<(), Failure> {
        let fresh = Hasher::new(self.descriptor.digest.algorithm());
        let actual = std::mem::replace(&mut self.hasher, fresh).finish();
        if actual != self.descriptor.digest {
            return Err(Reason::WrongDigest {
                expected: self.descriptor.digest.clone(),
                actual,
            }
            .into());
        }
        // The content is right: a connection that breaks now takes nothing away.
        if let Some(Ok(1..)) = self.body.as_mut().map(|body| body.read(&mut [0])) {
            let expected = self.descriptor.size;
            return Err(Reason::TooLong { expected }.into());
        }
        self.body = None;
        self.state = State::Verified;
        Ok(())
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.state {
            State::Verified => return Ok(0),
            // Who reads on after an error must not take it for the end.
            State::Failed => return Err(io::Error::other("this download has failed")),
            State::Reading if buffer.is_empty() => return Ok(0),
            State::Reading => {}
        }
        loop {
            let failure = match self.try_read(buffer) {
                Ok(count) => return Ok(count),
                Err(failure) => failure,
            };
            self.body = None;
            if self.received - self.opened_at >= PROGRESS_THAT_COUNTS {
                self.backoff.reset();
            }
            self.opened_at = self.received;
            match failure.retry {
                Retry::After(delay) if self.backoff.wait(delay) => {}
                _ => self.turn_to_next(failure)?,
            }
        }
    }
}

/// The body of an answer, from where the blob goes on.
struct Body {
    reader: BodyReader<'static>,
    /// Whether the answer says where it ends, so that an early end is no cut.
    framed: bool,
}

impl Body {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        loop {
            match self.reader.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(Failure::from_io),
            }
        }
    }

    /// Makes the failure of a body that has ended after `received` bytes of the blob.
    fn ended_early(&self, descriptor: &Descriptor, received: u64) -> Failure {
        let reason = Reason::Truncated {
            expected: descriptor.size,
            received,
        };
        if self.framed {
            reason.into()
        } else {
            Failure::passing(reason)
        }
    }

    /// Discards what a registry that does not know ranges sends again.
    fn skip(&mut self, descriptor: &Descriptor, count: u64) -> Result<(), Failure> {
        let mut scrap = [0; 16 << 10];
        let mut left = count;
        while left > 0 {
            let most = scrap.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match self.read(&mut scrap[..most])? {
                0 => return Err(self.ended_early(descriptor, count - left)),
                skipped => left -= skipped as u64,
            }
        }
        Ok(())
    }
}

/// Requests a blob from `offset` on.
fn open(
    client: &Client,
    subject: &Subject,
    descriptor: &Descriptor,
    offset: u64,
) -> Result<Body, Failure> {
    let path = format!("/v2/{}/blobs/{}", subject.repository, descriptor.digest);
    let range = [(header::RANGE, format!("bytes={offset}-"))];
    let headers = if offset > 0 { &range[..] } else { &[] };
    let target = Target::Path(&path);
    let answer = client.attempt(subject, &Method::GET, target, headers, &mut Payload::Empty)?;
    let response = answer.response;
    let skip = match response.status() {
        StatusCode::OK => offset,
        StatusCode::PARTIAL_CONTENT if offset > 0 => {
            let range = header_text(&response, header::CONTENT_RANGE).unwrap_or_default();
            if range_start(&range) != Some(offset) {
                let why = "it resumes at another place than was asked for";
                return Err(Reason::Malformed(why.to_owned()).into());
            }
            0
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            return Err(Reason::Truncated {
                expected: descriptor.size,
                received: offset,
            }
            .into());
        }
        _ => return Err(refuse(response)),
    };
    let announced = header_text(&response, header::CONTENT_LENGTH);
    if let Some(length) = announced.as_ref().and_then(|text| text.parse::<u64>().ok()) {
        let actual = length.saturating_add(offset - skip);
        if actual != descriptor.size {
            let expected = descriptor.size;
            return Err(Reason::WrongSize { expected, actual }.into());
        }
    }
    let framed = announced.is_some() || response.headers().contains_key(header::TRANSFER_ENCODING);
    let mut body = Body {
        reader: response.into_body().into_reader(),
        framed,
    };
    body.skip(descriptor, skip)?;
    Ok(body)
}

/// Returns where a `Content-Range` of bytes starts.
fn range_start(value: &str) -> Option<u64> {
    let range = value.trim().strip_prefix("bytes")?.trim_start();
    range.split('-').next()?.trim().parse().ok()
}
