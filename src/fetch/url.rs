//! URLs into the store: one request, and no body, where what is there is still valid.

use std::fs::File;
use std::io::{self, Read, Write};

use super::{FetchError, Fetcher, Result};
use crate::event::{TransferOutcome, Verb};
use crate::image::{Algorithm, Digest, Hasher};
use crate::registry::{Validators, percent_decoded, shown_url};
use crate::store::{UrlRecord, Verifying};

/// What a URL gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The blob with the body.
    pub digest: Digest,
    /// `Last-Modified` in seconds since the epoch, where the server said so.
    pub modified: Option<i64>,
    /// Whether it came just now, and not in an earlier build.
    is_fresh: bool,
}

/// The name of a file from a URL that ends in none, as BuildKit has it.
const NAMELESS: &str = "__unnamed__";

/// Returns the name that a file gets from its URL.
pub fn name_of_url(url: &str) -> Vec<u8> {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let path = path.split_once('/').map_or("", |(_, path)| path);
    let decoded = percent_decoded(path);
    let name = decoded
        .split(|b| *b == b'/')
        .rfind(|part| !part.is_empty())
        .unwrap_or_default();
    if matches!(name, b"" | b"." | b"..") || name.contains(&0) {
        return NAMELESS.as_bytes().to_vec();
    }
    name.to_vec()
}

/// Returns the time that `Last-Modified` says.
fn time_of(validators: &Validators) -> Option<i64> {
    let text = validators.last_modified.as_deref()?;
    jiff::fmt::rfc2822::DateTimeParser::new()
        .relaxed_weekday(true)
        .parse_timestamp(text)
        .ok()
        .map(jiff::Timestamp::as_second)
}

impl Fetcher<'_> {
    /// Fetches a URL into the blobs of the store. What an earlier build fetched is taken where
    /// the server says that it is still valid, or where it has the digest `expected`.
    ///
    /// # Errors
    /// The server refuses or can't be reached, or gives something else than `expected`.
    pub fn url(&self, url: &str, expected: Option<&Digest>) -> Result<Fetched> {
        let store = self.transfer.store;
        let known = store
            .url_record(url)
            .filter(|record| store.has_blob(&record.digest));
        if let (Some(record), Some(expected)) = (&known, expected)
            && record.digest == *expected
        {
            return Ok(fetched(record, false));
        }
        let mut conditions = known.as_ref().map_or_else(Validators::default, validators);
        if expected.is_some() {
            // What is there has another checksum: that it is still valid would help nobody.
            conditions = Validators::default();
        }
        let shown = shown_url(url);
        let authorization = self.authorizations.of_url(url);
        let taken = self.web.get(url, authorization, &conditions, |answer| {
            let Some(mut body) = answer.body else {
                return Ok(Ok(None));
            };
            let reported = self.transfer.begin(&shown, Verb::Pull, answer.length);
            let progress = reported.progress();
            let mut blob = match store.new_blob(self.transfer.session) {
                Ok(blob) => blob,
                Err(error) => return Ok(Err(FetchError::from(error))),
            };
            let mut other = expected
                .filter(|expected| expected.algorithm() != Algorithm::Sha256)
                .map(|expected| Hasher::new(expected.algorithm()));
            let mut buffer = vec![0; 64 << 10];
            let mut received = 0;
            loop {
                let read = match body.read(&mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    other => other?,
                };
                if read == 0 {
                    break;
                }
                blob.write_all(&buffer[..read])?;
                if let Some(hasher) = &mut other {
                    hasher.update(&buffer[..read]);
                }
                received += read as u64;
                progress(received);
            }
            blob.flush()?;
            let digest = blob.digest();
            let found = other.map_or_else(|| digest.clone(), Hasher::finish);
            if let Some(expected) = expected
                && found != *expected
            {
                return Ok(Err(FetchError::Checksum {
                    url: shown.clone(),
                    expected: expected.clone(),
                    found,
                }));
            }
            if let Err(error) = blob.commit() {
                return Ok(Err(error.into()));
            }
            reported.end(TransferOutcome::Done);
            Ok(Ok(Some((digest, answer.validators))))
        })??;
        let Some((digest, answered)) = taken else {
            // Only asked for where there is a record.
            return match known {
                Some(record) => Ok(fetched(&record, false)),
                None => Err(FetchError::Store(crate::store::StoreError::NoBlob(
                    Digest::of(url.as_bytes()),
                ))),
            };
        };
        let record = UrlRecord {
            url: shown,
            digest,
            etag: answered.etag,
            last_modified: answered.last_modified,
        };
        store.write_url_record(url, &record)?;
        Ok(fetched(&record, true))
    }

    /// Opens what a URL gave. What an earlier build left is verified before, since a crash may
    /// have taken its bytes; then it is fetched again.
    ///
    /// # Errors
    /// As for [`Fetcher::url`].
    pub fn open(&self, url: &str, fetched: &Fetched) -> Result<File> {
        let store = self.transfer.store;
        if !fetched.is_fresh {
            let mut reader =
                Verifying::new(store.open_blob(&fetched.digest)?, fetched.digest.clone());
            if io::copy(&mut reader, &mut io::sink()).is_err() {
                store.forget_url(url)?;
                let again = self.url(url, Some(&fetched.digest))?;
                return Ok(store.open_blob(&again.digest)?);
            }
        }
        Ok(store.open_blob(&fetched.digest)?)
    }
}

fn validators(record: &UrlRecord) -> Validators {
    Validators {
        etag: record.etag.clone(),
        last_modified: record.last_modified.clone(),
    }
}

fn fetched(record: &UrlRecord, is_fresh: bool) -> Fetched {
    Fetched {
        digest: record.digest.clone(),
        modified: time_of(&validators(record)),
        is_fresh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_last_component_of_the_path() {
        for (url, name) in [
            ("https://h.example/a/b.tar.gz?x=/y#z", "b.tar.gz"),
            ("https://h.example/a%20b", "a b"),
            ("https://h.example/a%2fb", "b"),
            ("https://h.example/a/", "a"),
            ("https://h.example", "__unnamed__"),
            ("https://h.example/?q", "__unnamed__"),
            ("https://h.example/a/..", "__unnamed__"),
            ("https://h.example/%00", "__unnamed__"),
        ] {
            assert_eq!(name_of_url(url), name.as_bytes(), "{url}");
        }
    }

    #[test]
    fn last_modified_is_a_time_where_it_is_one() {
        let time = |text: &str| {
            time_of(&Validators {
                etag: None,
                last_modified: Some(text.to_owned()),
            })
        };
        assert_eq!(time("Wed, 21 Oct 2015 07:28:00 GMT"), Some(1_445_412_480));
        assert_eq!(time("yesterday"), None);
    }
}
