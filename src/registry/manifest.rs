//! Fetching manifests and indexes, and the way from a name to the image of a platform.

use serde::Deserialize;
use ureq::http::{HeaderName, Method, StatusCode, header};

use super::client::{Client, Subject, Target, refuse};
use super::error::{Failure, Reason, RegistryError, printable};
use super::transport::{Payload, header_text, read_document};
use crate::image::{Digest, Hasher, ManifestKind, Platform, Reference, media_type};

/// The largest image manifest, which is what registries accept too.
/// See <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-manifests>.
const LARGEST_MANIFEST: u64 = 4 << 20;

/// The largest index.
const LARGEST_INDEX: u64 = 8 << 20;

/// How deep indexes may be nested: an index of indexes of images.
const DEEPEST_INDEX: usize = 2;

/// How many tags are named where the wanted one does not exist.
const SHOWN_TAGS: usize = 8;

/// The header with the digest of what a registry sends or stored.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A manifest or index as a registry has it.
#[derive(Clone, Debug)]
pub struct FetchedManifest {
    /// The document, byte for byte.
    pub bytes: Vec<u8>,
    /// Its digest, which was verified.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// What it says.
    pub kind: ManifestKind,
}

/// The image of one platform.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// The index that the name stands for, if it stands for one.
    pub index: Option<FetchedManifest>,
    /// The manifest; its kind is [`ManifestKind::Image`].
    pub manifest: FetchedManifest,
}

impl Client {
    /// Fetches what `reference` names. The bytes are verified against the digest of the
    /// reference, and against the one that the registry gives.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn manifest(&self, reference: &Reference) -> Result<FetchedManifest, RegistryError> {
        let object = format!("manifest {}", reference.manifest_selector());
        let read = |subject: &Subject| match self
            .retrying(subject, || self.fetch_manifest(subject, reference))
        {
            Err(error)
                if matches!(error.reason(), Reason::NotFound)
                    && reference.digest().is_none()
                    && !subject.is_mirror =>
            {
                let reason = self.explain_missing_tag(subject);
                Err(subject.error(reason))
            }
            other => other,
        };
        let (fetched, ..) = self.read_from_sources(reference, &object, read)?;
        Ok(fetched)
    }

    /// Fetches the image of `reference` for `platform`, through an index if there is one.
    /// An image without an index is returned as it is: its config tells its platform.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage, RegistryError> {
        let mut fetched = self.manifest(reference)?;
        let mut outermost = None;
        let mut depth = 0;
        while let ManifestKind::Index(index) = &fetched.kind {
            depth += 1;
            let fail = |object: &str, reason| {
                let (registry, repository) = (reference.registry(), reference.repository());
                RegistryError::new(registry, repository, object, reason)
            };
            let object = format!("index {}", fetched.digest);
            if depth > DEEPEST_INDEX {
                let why = format!("indexes are nested deeper than {DEEPEST_INDEX}");
                return Err(fail(&object, Reason::Malformed(why)));
            }
            let entry = index.choose(platform).ok_or_else(|| {
                let wanted = platform.to_string();
                let available = index.platforms();
                fail(&object, Reason::NoPlatform { wanted, available })
            })?;
            let expected = entry.descriptor.clone();
            let next = self.manifest(&reference.with_digest(&expected.digest))?;
            let actual = next.bytes.len() as u64;
            if actual != expected.size {
                let object = format!("manifest {}", expected.digest);
                let expected = expected.size;
                return Err(fail(&object, Reason::WrongSize { expected, actual }));
            }
            let index = std::mem::replace(&mut fetched, next);
            outermost.get_or_insert(index);
        }
        Ok(ResolvedImage {
            index: outermost,
            manifest: fetched,
        })
    }

    fn fetch_manifest(
        &self,
        subject: &Subject,
        reference: &Reference,
    ) -> Result<FetchedManifest, Failure> {
        let accept = [
            media_type::OCI_MANIFEST,
            media_type::OCI_INDEX,
            media_type::DOCKER_MANIFEST,
            media_type::DOCKER_LIST,
        ];
        let headers = [(header::ACCEPT, accept.join(", "))];
        let path = manifest_path(subject, reference);
        let target = Target::Path(&path);
        let answer = self.attempt(subject, &Method::GET, target, &headers, &mut Payload::Empty)?;
        let response = answer.response;
        if response.status() != StatusCode::OK {
            return Err(refuse(response));
        }
        let content_type = header_text(&response, header::CONTENT_TYPE);
        let announced = announced_digest(header_text(&response, CONTENT_DIGEST));
        let bytes = read_document(response, LARGEST_INDEX)?;
        let pinned = reference.digest();
        for expected in pinned.iter().chain(&announced) {
            verify(expected, &bytes)?;
        }
        let kind = ManifestKind::parse(&bytes, content_type.as_deref()).map_err(Reason::from)?;
        let media_type = match &kind {
            ManifestKind::Image(manifest) => manifest.media_type.clone(),
            ManifestKind::Index(_) => index_media_type(content_type.as_deref(), &bytes),
        };
        if matches!(kind, ManifestKind::Image(_)) && bytes.len() as u64 > LARGEST_MANIFEST {
            let limit = LARGEST_MANIFEST;
            return Err(Reason::TooLarge { limit }.into());
        }
        Ok(FetchedManifest {
            digest: pinned.or(announced).unwrap_or_else(|| Digest::of(&bytes)),
            bytes,
            media_type,
            kind,
        })
    }

    /// Finds out whether it is the tag or the whole repository that is missing: registries
    /// answer alike to both.
    fn explain_missing_tag(&self, subject: &Subject) -> Reason {
        #[derive(Deserialize)]
        struct Tags {
            tags: Option<Vec<String>>,
        }
        let path = format!("/v2/{}/tags/list?n={SHOWN_TAGS}", subject.repository);
        let target = Target::Path(&path);
        let listed = self
            .attempt(subject, &Method::GET, target, &[], &mut Payload::Empty)
            .and_then(|answer| match answer.response.status() {
                StatusCode::OK => read_document(answer.response, LARGEST_MANIFEST),
                _ => Err(refuse(answer.response)),
            });
        let body = match listed {
            Ok(body) => body,
            Err(Failure {
                reason: Reason::NotFound | Reason::RepositoryNotFound,
                ..
            }) => return Reason::RepositoryNotFound,
            Err(_) => return Reason::NotFound,
        };
        let tags = serde_json::from_slice::<Tags>(&body).ok();
        let tags = tags.and_then(|tags| tags.tags).unwrap_or_default();
        Reason::TagNotFound {
            known: tags.iter().take(SHOWN_TAGS).map(|t| printable(t)).collect(),
        }
    }
}

/// Returns the path at `subject` of the manifest that `reference` names.
pub(super) fn manifest_path(subject: &Subject, reference: &Reference) -> String {
    let selector = reference.manifest_selector();
    format!("/v2/{}/manifests/{selector}", subject.repository)
}

/// Parses the registry's own digest of a document. One of an algorithm that kiln does not
/// know says nothing.
pub(super) fn announced_digest(header: Option<String>) -> Option<Digest> {
    header?.trim().parse().ok()
}

/// Checks that `bytes` have the digest `expected`.
pub(super) fn verify(expected: &Digest, bytes: &[u8]) -> Result<(), Failure> {
    let mut hasher = Hasher::new(expected.algorithm());
    hasher.update(bytes);
    let actual = hasher.finish();
    if actual == *expected {
        return Ok(());
    }
    Err(Reason::WrongDigest {
        expected: expected.clone(),
        actual,
    }
    .into())
}

/// Returns what an index calls itself, else what the registry calls it.
fn index_media_type(content_type: Option<&str>, bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        media_type: Option<String>,
    }
    let own = serde_json::from_slice::<Head>(bytes).ok();
    let named = own.and_then(|head| head.media_type).or_else(|| {
        let named = content_type?.split(';').next()?.trim();
        [media_type::OCI_INDEX, media_type::DOCKER_LIST]
            .contains(&named)
            .then(|| named.to_owned())
    });
    named.unwrap_or_else(|| media_type::OCI_INDEX.to_owned())
}
