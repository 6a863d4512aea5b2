//! Writing to registries: blobs in one streamed request each, manifests by name.
//! See <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#push>.

use std::io::{self, Read};

use ureq::http::{Method, StatusCode, Uri, header};

use super::client::{Answer, Client, Progress, Subject, Target, refuse};
use super::endpoint::encode;
use super::error::{Failure, Reason, RegistryError};
use super::manifest::{CONTENT_DIGEST, announced_digest, manifest_path, verify};
use super::transport::{Payload, header_text, next_hop};
use crate::image::{Descriptor, Digest, Reference};

/// How a blob came to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there before.
    Existed,
    /// The registry took it from another of its repositories.
    Mounted,
    /// It was uploaded.
    Uploaded,
}

impl Client {
    /// Brings a blob into the repository of `reference`, by the cheapest way that works.
    ///
    /// `open` is called for each try and returns the content from its start. `mount_from`
    /// names a repository that has the blob; one of another registry is passed over.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn push_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        open: &mut dyn FnMut() -> io::Result<Box<dyn Read + Send>>,
        mount_from: Option<&Reference>,
        progress: Option<Progress>,
    ) -> Result<Pushed, RegistryError> {
        let subject = self.written(reference, &format!("blob {}", descriptor.digest))?;
        let mut source = mount_from.filter(|source| {
            source.registry() == reference.registry()
                && source.repository() != reference.repository()
        });
        self.retrying(&subject, || {
            if let Some(from) = source {
                let mut subject = subject.clone();
                let readable = format!("repository:{}:pull", from.repository());
                subject.scopes.push(readable);
                match self.try_push(&subject, descriptor, open, Some(from), progress.as_ref()) {
                    // The user may have no right to read there: that is no reason to fail.
                    Err(Failure {
                        reason: Reason::Unauthorized { .. } | Reason::Denied(_) | Reason::Server(_),
                        ..
                    }) => source = None,
                    other => return other,
                }
            }
            self.try_push(&subject, descriptor, open, None, progress.as_ref())
        })
    }

    /// Uploads a blob while it is made: `open` reads it from its start to its end, and `digest`
    /// says afterwards what it was, or that it was not made to its end. `name` stands for it
    /// in errors.
    ///
    /// It is tried once: by the time it could be tried again, [`Client::push_blob`] can do it.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn push_stream(
        &self,
        reference: &Reference,
        name: &str,
        open: &mut dyn FnMut() -> io::Result<Box<dyn Read + Send>>,
        digest: &dyn Fn() -> Option<Digest>,
        progress: Option<Progress>,
    ) -> Result<(), RegistryError> {
        let subject = self.written(reference, name)?;
        self.try_push_stream(&subject, open, digest, progress.as_ref())
            .map_err(|failure| subject.error(failure.reason))
    }

    /// Stores a manifest or index under the name of `reference`, and returns its digest.
    /// What it refers to has to be there already.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let object = format!("manifest {}", reference.manifest_selector());
        let subject = self.written(reference, &object)?;
        if let Some(pinned) = reference.digest() {
            verify(&pinned, bytes).map_err(|failure| subject.error(failure.reason))?;
        }
        let headers = [(header::CONTENT_TYPE, media_type.to_owned())];
        let path = manifest_path(&subject, reference);
        self.retrying(&subject, || {
            let target = Target::Path(&path);
            let payload = &mut Payload::Bytes(bytes);
            let answer = self.attempt(&subject, &Method::PUT, target, &headers, payload)?;
            if !answer.response.status().is_success() {
                return Err(refuse(answer.response));
            }
            match announced_digest(header_text(&answer.response, CONTENT_DIGEST)) {
                Some(announced) => verify(&announced, bytes),
                None => Ok(()),
            }
        })?;
        Ok(reference.digest().unwrap_or_else(|| Digest::of(bytes)))
    }

    fn try_push(
        &self,
        subject: &Subject,
        descriptor: &Descriptor,
        open: &mut dyn FnMut() -> io::Result<Box<dyn Read + Send>>,
        source: Option<&Reference>,
        progress: Option<&Progress>,
    ) -> Result<Pushed, Failure> {
        // Asked before each try: the last may have arrived, and only its answer got lost.
        if self.has_blob(subject, &descriptor.digest)? {
            return Ok(Pushed::Existed);
        }
        let digest = encode(&descriptor.digest.to_string());
        let mut path = format!("/v2/{}/blobs/uploads/", subject.repository);
        if let Some(source) = source {
            path += &format!("?mount={digest}&from={}", encode(source.repository()));
        }
        let target = Target::Path(&path);
        let begun = self.attempt(subject, &Method::POST, target, &[], &mut Payload::Empty)?;
        match begun.response.status() {
            StatusCode::CREATED if source.is_some() => return Ok(Pushed::Mounted),
            StatusCode::ACCEPTED => {}
            _ => return Err(refuse(begun.response)),
        }
        let url = self.upload_url(subject, &begun, Some(&descriptor.digest))?;
        let kind = "application/octet-stream".to_owned();
        let mut payload = Payload::Stream {
            size: Some(descriptor.size),
            open,
            progress,
        };
        let answer = self.attempt(
            subject,
            &Method::PUT,
            Target::Url(&url),
            &[(header::CONTENT_TYPE, kind)],
            &mut payload,
        )?;
        taken(answer, &descriptor.digest)?;
        Ok(Pushed::Uploaded)
    }

    fn try_push_stream(
        &self,
        subject: &Subject,
        open: &mut dyn FnMut() -> io::Result<Box<dyn Read + Send>>,
        digest: &dyn Fn() -> Option<Digest>,
        progress: Option<&Progress>,
    ) -> Result<(), Failure> {
        let path = format!("/v2/{}/blobs/uploads/", subject.repository);
        let target = Target::Path(&path);
        let begun = self.attempt(subject, &Method::POST, target, &[], &mut Payload::Empty)?;
        if begun.response.status() != StatusCode::ACCEPTED {
            return Err(refuse(begun.response));
        }
        let url = self.upload_url(subject, &begun, None)?;
        let kind = [(header::CONTENT_TYPE, "application/octet-stream".to_owned())];
        let mut payload = Payload::Stream {
            size: None,
            open,
            progress,
        };
        let sent = self.attempt(
            subject,
            &Method::PATCH,
            Target::Url(&url),
            &kind,
            &mut payload,
        )?;
        if !sent.response.status().is_success() {
            return Err(refuse(sent.response));
        }
        let unknown = || Reason::Content(io::Error::other("it was not made to its end"));
        let digest = digest().ok_or_else(unknown)?;
        let url = self.upload_url(subject, &sent, Some(&digest))?;
        let target = Target::Url(&url);
        let answer = self.attempt(subject, &Method::PUT, target, &[], &mut Payload::Empty)?;
        taken(answer, &digest)
    }

    /// Returns where an upload goes on, and with a digest, where it ends.
    fn upload_url(
        &self,
        subject: &Subject,
        answer: &Answer,
        digest: Option<&Digest>,
    ) -> Result<Uri, Failure> {
        let nowhere = || Reason::Malformed("the upload has no place to go to".to_owned());
        let mut location = header_text(&answer.response, header::LOCATION)
            .filter(|location| !location.is_empty())
            .ok_or_else(nowhere)?;
        if let Some(digest) = digest {
            location.push(if location.contains('?') { '&' } else { '?' });
            location += &format!("digest={}", encode(&digest.to_string()));
        }
        let url = self
            .endpoint(subject)?
            .upload_url(&answer.url, &location)
            .ok_or_else(nowhere)?;
        next_hop(&answer.url, &url.to_string())
    }
}

/// Checks the answer to the end of an upload.
fn taken(answer: Answer, digest: &Digest) -> Result<(), Failure> {
    if !answer.response.status().is_success() {
        return Err(refuse(answer.response));
    }
    match announced_digest(header_text(&answer.response, CONTENT_DIGEST)) {
        Some(actual) if actual.algorithm() == digest.algorithm() && actual != *digest => {
            let expected = digest.clone();
            Err(Reason::WrongDigest { expected, actual }.into())
        }
        _ => Ok(()),
    }
}
