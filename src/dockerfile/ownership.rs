//! `--chown` of COPY and ADD, read after expansion.

/// A user or group as it is written: a number, or a name to be looked up in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Id {
    /// Taken as it is.
    Number(u32),
    /// An entry of the image's passwd or group.
    Name(String),
}

/// Owners of files. `55` means group 55 too; `name` means that user's primary group; `:`
/// means nothing at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chown {
    /// The part before the colon.
    pub user: Option<Id>,
    /// The part behind the colon.
    pub group: Option<Id>,
}

/// A `--chown` that can't be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid owner {0:?}")]
pub struct ChownError(pub String);

impl ChownError {
    /// Returns what an owner looks like.
    pub fn hint(&self) -> Option<String> {
        Some("an owner is user, user:group or :group, by name or number".to_owned())
    }
}

impl Chown {
    /// Reads `[user][:[group]]`.
    pub fn parse(text: &str) -> Result<Chown, ChownError> {
        let error = || ChownError(text.chars().take(100).collect());
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        let id = |part: &str| match part {
            "" => Ok(None),
            part if part.contains(':') || part.chars().any(char::is_whitespace) => Err(error()),
            part if part.bytes().all(|b| b.is_ascii_digit()) => {
                // 2^32-1 is the kernel's "leave it alone".
                let number = part.parse().ok().filter(|n| *n != u32::MAX);
                Ok(Some(Id::Number(number.ok_or_else(error)?)))
            }
            part => Ok(Some(Id::Name(part.to_owned()))),
        };
        Ok(Chown {
            user: id(user)?,
            group: id(group)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_names_or_numbers() {
        let name = |n: &str| Some(Id::Name(n.to_owned()));
        let cases = [
            ("55", Some((Some(Id::Number(55)), None))),
            ("bob", Some((name("bob"), None))),
            ("bob:staff", Some((name("bob"), name("staff")))),
            ("0:staff", Some((Some(Id::Number(0)), name("staff")))),
            (":5", Some((None, Some(Id::Number(5))))),
            ("5:", Some((Some(Id::Number(5)), None))),
            (":", Some((None, None))),
            ("a:b:c", None),
            ("4294967295", None),
            ("99999999999", None),
            ("a b", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(user, group)| Chown { user, group });
            assert_eq!(Chown::parse(text).ok(), expected, "{text}");
        }
    }
}
