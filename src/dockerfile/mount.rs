//! `RUN --mount=…`.
//! See <https://docs.docker.com/reference/dockerfile/#run---mount>.

use super::expand::{ExpandError, Lookup};
use super::suggest::did_you_mean;
use super::{Diagnostic, Span, Word};

/// A mount as it is written; its values are expanded when the build gets there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it stands.
    pub span: Span,
    /// The stage, context or image that it mounts from; never expanded.
    pub from: Option<String>,
    /// The other fields, keys in lower case.
    fields: Vec<(String, Option<Word>)>,
}

/// What is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountKind {
    /// A directory or file of the context, a stage or an image.
    #[default]
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// A directory in memory.
    Tmpfs,
    /// A secret of the caller.
    Secret,
    /// The caller's SSH agent.
    Ssh,
}

impl MountKind {
    /// Returns the name as written in `type=`.
    pub fn name(self) -> &'static str {
        match self {
            MountKind::Bind => "bind",
            MountKind::Cache => "cache",
            MountKind::Tmpfs => "tmpfs",
            MountKind::Secret => "secret",
            MountKind::Ssh => "ssh",
        }
    }

    const ALL: [MountKind; 5] = [
        MountKind::Bind,
        MountKind::Cache,
        MountKind::Tmpfs,
        MountKind::Secret,
        MountKind::Ssh,
    ];
}

/// How several steps use one cache at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// All at once.
    #[default]
    Shared,
    /// Each its own.
    Private,
    /// One after the other.
    Locked,
}

/// A mount with its values expanded and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSpec {
    /// What is mounted.
    pub kind: MountKind,
    /// The stage, context or image that it mounts from.
    pub from: Option<String>,
    /// The path within that; for a secret another word for `id`.
    pub source: Option<String>,
    /// Where it is mounted: relative to the working directory, and that itself if missing.
    pub target: Option<String>,
    /// Whether the step may not write.
    pub read_only: bool,
    /// The limit of a tmpfs, in bytes.
    pub size: Option<u64>,
    /// Which cache, secret or agent.
    pub id: Option<String>,
    /// How a cache is shared.
    pub sharing: Sharing,
    /// Whether a missing secret or agent is an error.
    pub required: bool,
    /// The environment variable that gets a secret; an empty one is named after the id.
    pub env: Option<String>,
    /// Permission bits of a cache, secret or socket.
    pub mode: Option<u32>,
    /// Owner of a cache, secret or socket.
    pub uid: Option<u32>,
    /// Group of a cache, secret or socket.
    pub gid: Option<u32>,
}

/// A mount that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MountError {
    /// A value that can't be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// Anything else.
    #[error("{message}")]
    Invalid {
        /// What is wrong.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

impl MountError {
    /// Returns what to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            MountError::Expand(error) => error.hint(),
            MountError::Invalid { hint, .. } => hint.clone(),
        }
    }

    /// Returns the error as a finding at `span`.
    pub fn at(&self, span: Span) -> Diagnostic {
        Diagnostic::new(span, self.to_string()).maybe_hinted(self.hint())
    }
}

fn invalid(message: impl Into<String>) -> MountError {
    MountError::Invalid {
        message: message.into(),
        hint: None,
    }
}

const KEYS: [&str; 22] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
    // Relabelling for SELinux, which other builders know; it means nothing here.
    "z",
    "relabel",
    "U",
];

impl Mount {
    /// Reads the value of a `--mount` flag. What has no variables is checked at once.
    pub(super) fn parse(value: &Word, span: Span) -> Result<Mount, MountError> {
        let mut mount = Mount {
            span,
            from: None,
            fields: Vec::new(),
        };
        for field in csv_fields(&value.text)? {
            let (key, value_text) = match field.split_once('=') {
                Some((key, text)) => (key, Some(text)),
                None => (field.as_str(), None),
            };
            let key = key.to_ascii_lowercase();
            if !KEYS.iter().any(|known| known.eq_ignore_ascii_case(&key)) {
                return Err(MountError::Invalid {
                    message: format!("unknown key {key:?} in a mount"),
                    hint: did_you_mean(&key, KEYS),
                });
            }
            if key == "from" {
                let from = value_text.unwrap_or_default();
                if from.trim_end_matches('$').contains('$') {
                    return Err(MountError::Invalid {
                        message: "a mount's from can't hold variables".to_owned(),
                        hint: Some(ALIAS_HINT.to_owned()),
                    });
                }
                mount.from = Some(from.to_owned()).filter(|from| !from.is_empty());
                continue;
            }
            let word = value_text.map(|text| Word {
                text: text.to_owned(),
                span: value.span,
            });
            mount.fields.push((key, word));
        }
        if !mount
            .words()
            .any(|word| word.text.contains(['$', '`', '\\', '"', '\'']))
        {
            mount.expand(&|_| None, '\\')?;
        }
        Ok(mount)
    }

    /// Returns the values that are expanded.
    pub(super) fn words(&self) -> impl Iterator<Item = &Word> {
        self.fields.iter().filter_map(|(_, word)| word.as_ref())
    }

    /// Returns the mount with its values expanded, checked, and defaults put in.
    pub fn expand(&self, env: &Lookup<'_>, escape: char) -> Result<MountSpec, MountError> {
        let mut spec = MountSpec {
            kind: MountKind::Bind,
            from: self.from.clone(),
            source: None,
            target: None,
            read_only: true,
            size: None,
            id: None,
            sharing: Sharing::Shared,
            required: false,
            env: None,
            mode: None,
            uid: None,
            gid: None,
        };
        let mut read_only = None;
        let mut sharing = None;
        let mut required = None;
        for (key, word) in &self.fields {
            let value = match word {
                Some(word) => Some(word.expand(env, escape)?),
                None => None,
            };
            let flag = || match value.as_deref() {
                None => Ok(true),
                Some(text) => parse_bool(text)
                    .ok_or_else(|| invalid(format!("{key} of a mount takes true or false"))),
            };
            match key.as_str() {
                "readonly" | "ro" => read_only = Some(flag()?),
                "readwrite" | "rw" => read_only = Some(!flag()?),
                "required" => required = Some(flag()?),
                "z" | "relabel" | "u" => {}
                _ => {
                    let value = value.ok_or_else(|| {
                        invalid(format!("{key} of a mount needs a value: {key}=…"))
                    })?;
                    match key.as_str() {
                        "type" => spec.kind = parse_kind(&value)?,
                        "source" | "src" => spec.source = Some(value),
                        "target" | "dst" | "destination" => spec.target = Some(value),
                        "id" => spec.id = Some(value),
                        "sharing" => sharing = Some(parse_sharing(&value)?),
                        "size" => spec.size = Some(parse_size(&value)?),
                        "mode" => spec.mode = Some(parse_mode(&value)?),
                        "uid" => spec.uid = Some(parse_id(key, &value)?),
                        "gid" => spec.gid = Some(parse_id(key, &value)?),
                        _ => spec.env = Some(value),
                    }
                }
            }
        }
        let empty_is_none =
            |text: &mut Option<String>| *text = text.take().filter(|t| !t.is_empty());
        empty_is_none(&mut spec.source);
        empty_is_none(&mut spec.target);
        empty_is_none(&mut spec.id);
        spec.read_only =
            read_only.unwrap_or(!matches!(spec.kind, MountKind::Cache | MountKind::Tmpfs));
        spec.check(sharing, required)?;
        spec.sharing = sharing.unwrap_or_default();
        spec.required = required.unwrap_or(false);
        Ok(spec)
    }
}

impl MountSpec {
    /// Refuses fields that have no meaning for this kind of mount.
    fn check(&self, sharing: Option<Sharing>, required: Option<bool>) -> Result<(), MountError> {
        use MountKind::{Cache, Secret, Ssh, Tmpfs};
        let only = |given: bool, key: &str, kinds: &[MountKind]| match given {
            true if !kinds.contains(&self.kind) => Err(invalid(format!(
                "{key} has no meaning for a mount of type {}",
                self.kind.name()
            ))),
            _ => Ok(()),
        };
        only(sharing.is_some(), "sharing", &[Cache])?;
        only(required.is_some(), "required", &[Secret, Ssh])?;
        only(self.size.is_some(), "size", &[Tmpfs])?;
        only(self.mode.is_some(), "mode", &[Cache, Secret, Ssh])?;
        only(self.uid.is_some(), "uid", &[Cache, Secret, Ssh])?;
        only(self.gid.is_some(), "gid", &[Cache, Secret, Ssh])?;
        only(self.env.is_some(), "env", &[Secret])?;
        only(self.from.is_some(), "from", &[MountKind::Bind, Cache])?;
        match self.kind {
            Secret if self.source.is_some() && self.id.is_some() => {
                Err(invalid("a secret takes either id or source"))
            }
            Secret if self.source.is_none() && self.target.is_none() && self.id.is_none() => {
                Err(invalid("a secret needs an id or a target"))
            }
            _ => Ok(()),
        }
    }
}

pub(super) const ALIAS_HINT: &str = "give the stage a name with a variable of its own: ARG before the first FROM, then \
     FROM image:$TAG AS alias, and use that name";

/// Splits `a,b,"c,d"` as CSV.
fn csv_fields(text: &str) -> Result<Vec<String>, MountError> {
    let broken = || invalid("a quote in a mount must enclose a whole field, \"\" within it");
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let after = if let Some(mut quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            loop {
                let end = quoted.find('"').ok_or_else(broken)?;
                field.push_str(&quoted[..end]);
                quoted = &quoted[end + 1..];
                match quoted.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        quoted = more;
                    }
                    None => break,
                }
            }
            fields.push(field);
            quoted
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                return Err(broken());
            }
            fields.push(rest[..end].to_owned());
            &rest[end..]
        };
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err(broken()),
        }
    }
}

/// Reads a boolean as Go does.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn parse_kind(text: &str) -> Result<MountKind, MountError> {
    let lower = text.to_ascii_lowercase();
    let kind = MountKind::ALL.into_iter().find(|kind| kind.name() == lower);
    kind.ok_or_else(|| MountError::Invalid {
        message: format!("unknown type of mount {text:?}"),
        hint: did_you_mean(&lower, MountKind::ALL.map(MountKind::name))
            .or_else(|| Some("the types are bind, cache, tmpfs, secret and ssh".to_owned())),
    })
}

fn parse_sharing(text: &str) -> Result<Sharing, MountError> {
    match text.to_ascii_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => Err(MountError::Invalid {
            message: format!("unknown sharing of a cache {text:?}"),
            hint: did_you_mean(text, ["shared", "private", "locked"])
                .or_else(|| Some("it is shared, private or locked".to_owned())),
        }),
    }
}

fn parse_mode(text: &str) -> Result<u32, MountError> {
    let octal = !text.is_empty() && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mode = octal.then(|| u32::from_str_radix(text, 8).ok()).flatten();
    mode.filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| invalid(format!("invalid mode of a mount {text:?}: expected octal")))
}

fn parse_id(key: &str, text: &str) -> Result<u32, MountError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let id = digits.then(|| text.parse::<u32>().ok()).flatten();
    id.filter(|id| *id != u32::MAX).ok_or_else(|| {
        invalid(format!(
            "invalid {key} of a mount {text:?}: expected a number"
        ))
    })
}

/// Reads a size in bytes with a binary unit: `64m`, `1GiB`, `1.5g`.
fn parse_size(text: &str) -> Result<u64, MountError> {
    let error = || MountError::Invalid {
        message: format!("invalid size of a mount {text:?}"),
        hint: Some("a size is a number with a unit, as in 64m or 1g".to_owned()),
    };
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let number: f64 = number.parse().map_err(|_| error())?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let shift = match unit
        .strip_suffix("ib")
        .or(unit.strip_suffix('b'))
        .unwrap_or(&unit)
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(error()),
    };
    let bytes = number * (1_u64 << shift) as f64;
    if !(bytes.is_finite() && bytes < 9e18) {
        return Err(error());
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MountSpec, MountError> {
        let word = Word {
            text: text.to_owned(),
            span: Span::default(),
        };
        let env = |name: &str| (name == "X").then(|| "cache".to_owned());
        Mount::parse(&word, Span::default())?.expand(&env, '\\')
    }

    #[test]
    fn defaults_depend_on_the_type() {
        let bind = parse("target=/x").unwrap();
        assert_eq!((bind.kind, bind.read_only), (MountKind::Bind, true));
        let cache = parse("type=cache,dst=/x,sharing=LOCKED,id=a,mode=0700,uid=5").unwrap();
        assert_eq!((cache.kind, cache.read_only), (MountKind::Cache, false));
        assert_eq!((cache.sharing, cache.mode), (Sharing::Locked, Some(0o700)));
        let tmpfs = parse("type=tmpfs,target=/x,size=1.5k").unwrap();
        assert_eq!((tmpfs.read_only, tmpfs.size), (false, Some(1536)));
        assert!(!parse("target=/x,rw").unwrap().read_only);
        assert!(parse("type=cache,target=/x,ro=1").unwrap().read_only);
        assert!(!parse("target=/x,readonly=false,z").unwrap().read_only);
        let secret = parse("required,type=secret,id=s,env=TOKEN").unwrap();
        assert!(secret.required && secret.env.as_deref() == Some("TOKEN"));
        assert_eq!(parse("type=ssh").unwrap().kind, MountKind::Ssh);
    }

    #[test]
    fn values_are_expanded_and_from_is_not() {
        let spec = parse("type=$X,target=/var/$X,from=base").unwrap();
        assert_eq!(spec.kind, MountKind::Cache);
        assert_eq!(spec.target.as_deref(), Some("/var/cache"));
        assert_eq!(spec.from.as_deref(), Some("base"));
        let error = parse("from=$X,target=/x").unwrap_err();
        assert!(error.hint().unwrap().contains("AS alias"));
    }

    #[test]
    fn quoted_fields_may_hold_commas() {
        let spec = parse("\"target=/a,b\",type=tmpfs").unwrap();
        assert_eq!(spec.target.as_deref(), Some("/a,b"));
        for text in ["\"target=/a", "target=\"/a\"", "\"target=/a\"x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let cases = [
            ("type=bnid,target=/x", "unknown type"),
            ("tagret=/x", "unknown key"),
            ("target", "needs a value"),
            ("type=bind,target=/x,mode=0700", "mode has no meaning"),
            (
                "type=bind,target=/x,sharing=locked",
                "sharing has no meaning",
            ),
            ("type=cache,target=/x,sharing=foo", "unknown sharing"),
            ("type=cache,target=/x,size=1m", "size has no meaning"),
            ("type=tmpfs,target=/x,size=1q", "invalid size"),
            ("type=cache,target=/x,mode=9", "invalid mode"),
            ("type=cache,target=/x,uid=-1", "invalid uid"),
            ("type=secret", "needs an id"),
            ("type=secret,id=a,source=b", "either id or source"),
            ("type=secret,id=a,from=b", "from has no meaning"),
            ("target=/x,ro=maybe", "true or false"),
            ("target=/x,required", "required has no meaning"),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert_eq!(
            parse("tagret=/x").unwrap_err().hint().as_deref(),
            Some("did you mean target?")
        );
    }
}
