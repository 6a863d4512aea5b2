//! The tags of a repository, which come in pages.
//! See <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#listing-tags>.

use std::collections::BTreeSet;

use serde::Deserialize;
use ureq::http::{Method, StatusCode, Uri, header};

use super::client::{Answer, Client, Subject, Target, refuse};
use super::error::{Failure, Reason, RegistryError, printable};
use super::transport::{Payload, header_text, read_document};
use crate::image::Reference;

/// How many tags are asked for at once; registries may send fewer, or more.
const PAGE: usize = 1000;

/// The largest page.
const LARGEST_PAGE: u64 = 4 << 20;

/// No repository has more tags.
const MOST_TAGS: usize = 1 << 16;

#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

impl Client {
    /// Returns all tags of the repository of `reference`, in order. What no name could have as
    /// its tag is left out.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn tags(&self, reference: &Reference) -> Result<Vec<String>, RegistryError> {
        let read = |subject: &Subject| {
            let mut tags = BTreeSet::new();
            let mut next = None;
            loop {
                let (page, following) =
                    self.retrying(subject, || self.page_of_tags(subject, next.as_ref()))?;
                let before = tags.len();
                tags.extend(page);
                if tags.len() > MOST_TAGS {
                    let why = format!("it lists more than {MOST_TAGS} tags");
                    return Err(subject.error(Reason::Malformed(why)));
                }
                next = following;
                if next.is_none() {
                    break;
                }
                if tags.len() == before {
                    let why = "its list of tags goes on without an end".to_owned();
                    return Err(subject.error(Reason::Malformed(why)));
                }
            }
            let is_tag = |tag: &String| reference.with_tag(tag).is_some();
            Ok(tags.into_iter().filter(is_tag).collect())
        };
        Ok(self.read_from_sources(reference, "tags", read)?.0)
    }

    /// Reads a page, and returns where the next one is.
    fn page_of_tags(
        &self,
        subject: &Subject,
        at: Option<&Uri>,
    ) -> Result<(Vec<String>, Option<Uri>), Failure> {
        let first = format!("/v2/{}/tags/list?n={PAGE}", subject.repository);
        let target = at.map_or(Target::Path(&first), Target::Url);
        let answer = self.attempt(subject, &Method::GET, target, &[], &mut Payload::Empty)?;
        match answer.response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(Reason::RepositoryNotFound.into()),
            _ => return Err(refuse(answer.response)),
        }
        let next = self.next_page(subject, &answer)?;
        let body = read_document(answer.response, LARGEST_PAGE)?;
        let page: Page = serde_json::from_slice(&body)
            .map_err(|_| Reason::Malformed("its list of tags is no JSON object".to_owned()))?;
        Ok((page.tags.unwrap_or_default(), next))
    }

    /// Returns where the list goes on, which is at the registry itself.
    fn next_page(&self, subject: &Subject, answer: &Answer) -> Result<Option<Uri>, Failure> {
        let Some(link) = header_text(&answer.response, header::LINK) else {
            return Ok(None);
        };
        let Some(location) = next_link(&link) else {
            return Ok(None);
        };
        let endpoint = self.endpoint(subject)?;
        let url = endpoint.upload_url(&answer.url, location);
        match url.filter(|url| endpoint.owns(url)) {
            Some(url) => Ok(Some(url)),
            None => {
                let host = location.split('?').next().unwrap_or_default();
                let text = format!("{}, for more tags", printable(host));
                Err(Reason::Redirect(text).into())
            }
        }
    }
}

/// Returns the target of the link `next`.
/// See <https://www.rfc-editor.org/rfc/rfc8288#section-3>.
fn next_link(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        let (_, after) = rest.split_once('<')?;
        let (target, after) = after.split_once('>')?;
        let (parameters, others) = match after.split_once(",<").or(after.split_once(", <")) {
            Some((parameters, _)) => (parameters, &after[parameters.len() + 1..]),
            None => (after, ""),
        };
        let is_next = parameters.split(';').any(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = value.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel") && value.eq_ignore_ascii_case("next")
        });
        if is_next {
            return Some(target);
        }
        rest = others;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_to_the_next_page_is_found_among_others() {
        for (header, target) in [
            (
                "</v2/a/tags/list?last=b&n=2>; rel=\"next\"",
                Some("/v2/a/tags/list?last=b&n=2"),
            ),
            ("<x>; rel=next", Some("x")),
            (
                "<p>; rel=\"prev\", <n>; title=\"t\"; Rel=\"Next\"",
                Some("n"),
            ),
            ("<p>;rel=prev,<n>;rel=next", Some("n")),
            ("<p>; rel=\"prev\"", None),
            ("<n; rel=next", None),
            ("", None),
        ] {
            assert_eq!(next_link(header), target, "{header}");
        }
    }
}
