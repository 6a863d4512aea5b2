//! Writing to registries: blobs in one streamed request each, manifests by name.
//! See <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#push>.

use std::io::{self, Read};

use ureq::http::{Method, StatusCode, header};

use super::client::{Client, Progress, Subject, Target, refuse};
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
        let nowhere = || Reason::Malformed("the upload has no place to go to".to_owned());
        let location = header_text(&begun.response, header::LOCATION)
            .filter(|location| !location.is_empty())
            .ok_or_else(nowhere)?;
        let separator = if location.contains('?') { '&' } else { '?' };
        let location = format!("{location}{separator}digest={digest}");
        let url = self
            .endpoint(subject)?
            .upload_url(&begun.url, &location)
            .ok_or_else(nowhere)?;
        let url = next_hop(&begun.url, &url.to_string())?;
        let kind = "application/octet-stream".to_owned();
        let mut payload = Payload::Stream {
            size: descriptor.size,
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
        if !answer.response.status().is_success() {
            return Err(refuse(answer.response));
        }
        let announced = announced_digest(header_text(&answer.response, CONTENT_DIGEST));
        match announced {
            Some(actual)
                if actual.algorithm() == descriptor.digest.algorithm()
                    && actual != descriptor.digest =>
            {
                Err(Reason::WrongDigest {
                    expected: descriptor.digest.clone(),
                    actual,
                }
                .into())
            }
            _ => Ok(Pushed::Uploaded),
        }
    }
}
