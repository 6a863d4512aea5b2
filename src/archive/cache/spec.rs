//! `--cache-from` and `--cache-to` of `kiln build`.
//! See <https://docs.docker.com/build/cache/backends/local/>.

use std::path::PathBuf;

use crate::archive::output::csv_fields;
use crate::dockerfile::suggest::did_you_mean;
use crate::transfer::Packing;

/// Where steps are looked for that other machines did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheFrom {
    /// A directory.
    Local(PathBuf),
    /// A kind of place that kiln has nothing to do with.
    Elsewhere(String),
}

/// Where steps are kept for other machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheTo {
    /// A directory.
    Local {
        /// The directory.
        dest: PathBuf,
        /// Whether the steps of all stages are kept, and not only those of the image.
        all_stages: bool,
        /// How layers are compressed.
        packing: Packing,
    },
    /// A kind of place that kiln has nothing to do with.
    Elsewhere(String),
}

/// A `--cache-from` or `--cache-to` that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {flag} {text:?}: {reason}")]
pub struct CacheSpecError {
    flag: &'static str,
    text: String,
    reason: String,
    hint: Option<String>,
}

impl CacheSpecError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let usual = match self.flag {
            FROM => "it is type=local,src=DIR",
            _ => "it is type=local,dest=DIR[,mode=min|max][,compression=gzip|zstd]",
        };
        Some(self.hint.clone().unwrap_or_else(|| usual.to_owned()))
    }
}

const FROM: &str = "--cache-from";
const TO: &str = "--cache-to";

/// The attributes of a directory, which are those of BuildKit.
const FROM_KEYS: [&str; 4] = ["digest", "src", "tag", "type"];
const TO_KEYS: [&str; 10] = [
    "compression",
    "compression-level",
    "dest",
    "force-compression",
    "ignore-error",
    "image-manifest",
    "mode",
    "oci-mediatypes",
    "tag",
    "type",
];

/// What was given for a type, and its attributes.
struct Given {
    kind: String,
    attributes: Vec<(String, String)>,
}

impl Given {
    /// Parses fields as in CSV. A value that has none of the form `key=value` names an image
    /// in a registry.
    fn parse(flag: &'static str, text: &str) -> Result<Given, CacheSpecError> {
        let plain = |reason: &str| error(flag, text, reason.to_owned(), None);
        let fields = csv_fields(text).ok_or_else(|| plain("a quote is missing or misplaced"))?;
        if fields.iter().all(|field| !field.contains('=')) {
            if text.is_empty() {
                return Err(plain("it is empty"));
            }
            return Ok(Given {
                kind: "registry".to_owned(),
                attributes: Vec::new(),
            });
        }
        let mut given = Given {
            kind: String::new(),
            attributes: Vec::new(),
        };
        for field in &fields {
            let (key, value) = field.split_once('=').ok_or_else(|| {
                let reason = format!("{field:?} is no key=value");
                error(flag, text, reason, None)
            })?;
            match key.trim().to_lowercase().as_str() {
                "type" => given.kind = value.to_owned(),
                key => given.attributes.push((key.to_owned(), value.to_owned())),
            }
        }
        match given.kind.is_empty() {
            true => Err(plain("the type is missing")),
            false => Ok(given),
        }
    }

    fn refuse_unknown(
        &self,
        flag: &'static str,
        text: &str,
        known: &[&'static str],
    ) -> Result<(), CacheSpecError> {
        for (key, _) in &self.attributes {
            if !known.contains(&key.as_str()) {
                let hint = did_you_mean(key, known.iter().copied());
                let reason = format!("unknown attribute {key:?}");
                return Err(error(flag, text, reason, hint));
            }
        }
        Ok(())
    }

    fn directory(
        &self,
        flag: &'static str,
        text: &str,
        key: &str,
    ) -> Result<PathBuf, CacheSpecError> {
        match self.value(key) {
            Some(path) if !path.is_empty() => Ok(path.into()),
            _ => Err(error(flag, text, format!("{key} is missing"), None)),
        }
    }

    fn value(&self, wanted: &str) -> Option<&str> {
        let mut found = self.attributes.iter().rev();
        found
            .find(|(key, _)| key == wanted)
            .map(|(_, value)| value.as_str())
    }
}

fn error(flag: &'static str, text: &str, reason: String, hint: Option<String>) -> CacheSpecError {
    CacheSpecError {
        flag,
        text: text.to_owned(),
        reason,
        hint,
    }
}

impl CacheFrom {
    /// Parses the value of `--cache-from`.
    ///
    /// # Errors
    /// [`CacheSpecError`] says what can't be used.
    pub fn parse(text: &str) -> Result<CacheFrom, CacheSpecError> {
        let given = Given::parse(FROM, text)?;
        if given.kind != "local" {
            return Ok(CacheFrom::Elsewhere(given.kind));
        }
        given.refuse_unknown(FROM, text, &FROM_KEYS)?;
        given.directory(FROM, text, "src").map(CacheFrom::Local)
    }
}

impl CacheTo {
    /// Parses the value of `--cache-to`.
    ///
    /// # Errors
    /// [`CacheSpecError`] says what can't be used.
    pub fn parse(text: &str) -> Result<CacheTo, CacheSpecError> {
        let given = Given::parse(TO, text)?;
        if given.kind != "local" {
            return Ok(CacheTo::Elsewhere(given.kind));
        }
        given.refuse_unknown(TO, text, &TO_KEYS)?;
        let all_stages = match given.value("mode") {
            None | Some("min") => false,
            Some("max") => true,
            Some(other) => {
                let reason = format!("mode={other} is neither min nor max");
                return Err(error(TO, text, reason, None));
            }
        };
        let wrong = |reason: String| error(TO, text, reason, None);
        let level = given.value("compression-level").map(str::parse).transpose();
        let level = level.map_err(|_| wrong("compression-level is no number".to_owned()))?;
        let forced = matches!(given.value("force-compression"), Some("true" | "1"));
        let packing = Packing::new(given.value("compression"), level, forced);
        Ok(CacheTo::Local {
            dest: given.directory(TO, text, "dest")?,
            all_stages,
            packing: packing.map_err(|error| wrong(error.to_string()))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_parsed_as_buildx_does() {
        assert_eq!(
            CacheFrom::parse("type=local,src=/c"),
            Ok(CacheFrom::Local("/c".into()))
        );
        let to = |text: &str| match CacheTo::parse(text).unwrap() {
            CacheTo::Local {
                dest, all_stages, ..
            } => (dest, all_stages),
            other => panic!("{other:?}"),
        };
        assert_eq!(to("type=local,dest=c"), ("c".into(), false));
        assert_eq!(
            to("mode=max,type=local,\"dest=a,b\",compression=gzip"),
            ("a,b".into(), true)
        );
    }

    #[test]
    fn other_types_and_bare_names_are_told() {
        for (text, kind) in [
            ("type=gha", "gha"),
            ("type=registry,ref=a/b", "registry"),
            ("user/app:cache", "registry"),
        ] {
            let kind = kind.to_owned();
            assert_eq!(
                CacheFrom::parse(text),
                Ok(CacheFrom::Elsewhere(kind.clone()))
            );
            assert_eq!(CacheTo::parse(text), Ok(CacheTo::Elsewhere(kind)));
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let wrong = |result: Result<CacheTo, CacheSpecError>| {
            let error = result.unwrap_err();
            format!("{error} / {}", error.hint().unwrap())
        };
        assert_eq!(
            wrong(CacheTo::parse("type=local")),
            "invalid --cache-to \"type=local\": dest is missing / \
             it is type=local,dest=DIR[,mode=min|max][,compression=gzip|zstd]"
        );
        assert_eq!(
            wrong(CacheTo::parse("type=local,dst=x")),
            "invalid --cache-to \"type=local,dst=x\": unknown attribute \"dst\" / \
             did you mean dest?"
        );
        assert_eq!(
            wrong(CacheTo::parse("type=local,dest=x,mode=all")),
            "invalid --cache-to \"type=local,dest=x,mode=all\": mode=all is neither min nor max / \
             it is type=local,dest=DIR[,mode=min|max][,compression=gzip|zstd]"
        );
        assert_eq!(
            CacheFrom::parse("type=local,dest=x")
                .unwrap_err()
                .to_string(),
            "invalid --cache-from \"type=local,dest=x\": unknown attribute \"dest\""
        );
        assert!(CacheFrom::parse("src=x").is_err() && CacheFrom::parse("").is_err());
    }
}
