//! `-o` of `kiln build`.
//! See <https://docs.docker.com/reference/cli/docker/buildx/build/#output>.

use std::path::PathBuf;

use super::destination::Sink;
use super::{Destination, Layout, NamedImage, write_images, write_rootfs_dir, write_rootfs_tar};
use crate::dockerfile::suggest::did_you_mean;
use crate::image::{Digest, Reference};
use crate::store::Stack;
use crate::transfer::{Packing, Transfer};

/// What `-o` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// What is written, and where.
    pub output: Output,
    /// Names for the image, beside those of `-t`.
    pub names: Vec<Reference>,
    /// Whether the image is pushed, under those names.
    pub push: bool,
    /// How its layers are compressed.
    pub packing: Packing,
}

/// What a build's result is written as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// An image of the store.
    Image,
    /// An archive, or a directory of a layout.
    Images(Layout, Destination),
    /// A tar of the root file system.
    Tar(Destination),
    /// The root file system in a directory.
    Local(PathBuf),
}

/// An `-o` that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid output {text:?}: {reason}")]
pub struct OutputError {
    text: String,
    reason: String,
    hint: Option<String>,
}

impl OutputError {
    /// Returns what a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let usual =
            "it is PATH, - or type=oci|docker|tar|local|image|registry,dest=PATH[,tar=false]";
        Some(self.hint.clone().unwrap_or_else(|| usual.to_owned()))
    }
}

const TYPES: [&str; 6] = ["docker", "image", "local", "oci", "registry", "tar"];
const KEYS: [&str; 8] = [
    "compression",
    "compression-level",
    "dest",
    "force-compression",
    "name",
    "push",
    "tar",
    "type",
];

/// Parses the value of `-o`: fields as in CSV, each `key=value`. A path alone is a local
/// directory, and `-` a tar on standard output.
///
/// # Errors
/// [`OutputError`] says which field can't be used.
pub fn parse_output(text: &str) -> Result<OutputSpec, OutputError> {
    let error = |reason: String, hint: Option<String>| OutputError {
        text: text.to_owned(),
        reason,
        hint,
    };
    let plain = |reason: &str| error(reason.to_owned(), None);
    let fields = csv_fields(text).ok_or_else(|| plain("a quote is missing or misplaced"))?;
    if let [only] = fields.as_slice()
        && only == text
        && !text.starts_with("type=")
    {
        let output = match text {
            "" => return Err(plain("it is empty")),
            "-" => Output::Tar(Destination::Stdout),
            path => Output::Local(path.into()),
        };
        return Ok(OutputSpec {
            output,
            names: Vec::new(),
            push: false,
            packing: Packing::default(),
        });
    }
    let (mut kind, mut dest, mut tar, mut push) = (None, None, None, None);
    let (mut compression, mut level, mut forced) = (None, None, None);
    let mut names = Vec::new();
    for field in &fields {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| error(format!("{field:?} is no key=value"), None))?;
        let key = key.trim().to_lowercase();
        match key.as_str() {
            "type" => kind = Some(value),
            "dest" if value.is_empty() => return Err(plain("dest is empty")),
            "dest" => dest = Some(value),
            "name" => {
                for name in value.split(',') {
                    let name: Result<Reference, _> = name.trim().parse();
                    names.push(name.map_err(|e| error(e.to_string(), None))?);
                }
            }
            "compression" => compression = Some(value),
            "compression-level" => {
                let number = value.parse();
                level = Some(number.map_err(|_| plain("compression-level is no number"))?);
            }
            "tar" | "push" | "force-compression" => {
                let value = match value {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => {
                        return Err(error(
                            format!("{key}={value} is neither true nor false"),
                            None,
                        ));
                    }
                };
                match key.as_str() {
                    "tar" => tar = Some(value),
                    "force-compression" => forced = Some(value),
                    _ => push = Some(value),
                }
            }
            other => {
                let hint = did_you_mean(other, KEYS);
                return Err(error(format!("unknown attribute {other:?}"), hint));
            }
        }
    }
    let kind = kind.ok_or_else(|| plain("the type is missing"))?;
    let layout = match kind {
        "oci" => Some(Layout::Oci),
        "docker" => Some(Layout::Docker),
        _ => None,
    };
    if tar.is_some() && layout.is_none() {
        return Err(plain("tar is for type=oci and type=docker"));
    }
    if push.is_some() && !matches!(kind, "image" | "registry") {
        return Err(plain("push is for type=image"));
    }
    let stream = match dest {
        None | Some("-") => Destination::Stdout,
        Some(path) => Destination::File(path.into()),
    };
    let output = match (kind, layout) {
        (_, Some(layout)) => {
            let destination = match (tar, dest) {
                (Some(false), None | Some("-")) => {
                    return Err(plain("dest has to name a directory"));
                }
                (Some(false), Some(path)) => Destination::Directory(path.into()),
                _ => stream,
            };
            match (layout, dest) {
                // What buildx calls to load: kiln's store has the image anyway.
                (Layout::Docker, None) => Output::Image,
                _ => Output::Images(layout, destination),
            }
        }
        ("tar", _) => Output::Tar(stream),
        ("local", _) => match dest {
            None | Some("-") => return Err(plain("dest has to name a directory")),
            Some(path) => Output::Local(path.into()),
        },
        ("image" | "registry", _) if dest.is_some() => {
            return Err(plain("an image goes to the store"));
        }
        ("image" | "registry", _) => Output::Image,
        (other, _) => {
            let hint = did_you_mean(other, TYPES);
            return Err(error(format!("unknown type {other:?}"), hint));
        }
    };
    let packing = Packing::new(compression, level, forced.unwrap_or(false))
        .map_err(|e| error(e.to_string(), e.hint()))?;
    if packing != Packing::default() && matches!(output, Output::Tar(_) | Output::Local(_)) {
        return Err(plain("a root file system has no layers to compress"));
    }
    Ok(OutputSpec {
        output,
        names,
        push: push.unwrap_or(kind == "registry"),
        packing,
    })
}

/// Writes the result of a build: an image, which is in the store, and its layers. Returns
/// warnings about what can't be kept.
///
/// # Errors
/// See [`super::ArchiveError`]. Files are then as they were; a local directory may be written
/// in part.
pub fn write_output(
    transfer: &Transfer<'_>,
    spec: &OutputSpec,
    id: &Digest,
    stack: &Stack,
    names: &[Reference],
) -> super::Result<Vec<String>> {
    let store = transfer.store;
    match &spec.output {
        Output::Image => {
            for name in &spec.names {
                store.tag(name, id, None)?;
            }
        }
        Output::Images(layout, destination) => {
            let image = store.find(&id.to_string())?;
            let mut names = names.to_vec();
            names.extend(spec.names.iter().cloned());
            let images = [NamedImage { image, names }];
            write_images(transfer, &images, *layout, destination, &spec.packing)?;
        }
        Output::Tar(destination) => {
            let mut sink = match destination {
                Destination::File(path) | Destination::Directory(path) => Sink::to_file(path)?,
                Destination::Stdout => Sink::to_stdout()?,
            };
            write_rootfs_tar(store, stack, &mut sink)?;
            sink.commit()?;
        }
        Output::Local(directory) => return write_rootfs_dir(store, stack, directory),
    }
    Ok(Vec::new())
}

/// Splits a record of comma-separated values (RFC 4180); nothing where its quotes are wrong.
pub(super) fn csv_fields(text: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let mut field = String::new();
        if let Some(mut quoted) = rest.strip_prefix('"') {
            loop {
                let (part, behind) = quoted.split_once('"')?;
                field.push_str(part);
                match behind.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        quoted = more;
                    }
                    None => {
                        rest = behind;
                        break;
                    }
                }
            }
            if !rest.is_empty() && !rest.starts_with(',') {
                return None;
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field.push_str(&rest[..end]);
            rest = &rest[end..];
            if field.contains('"') {
                return None;
            }
        }
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Some(fields),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(text: &str) -> Output {
        parse_output(text).unwrap().output
    }

    #[test]
    fn a_path_alone_is_a_directory_and_a_dash_a_tar_on_stdout() {
        assert_eq!(output("out"), Output::Local("out".into()));
        assert_eq!(output("./a=b"), Output::Local("./a=b".into()));
        assert_eq!(output("-"), Output::Tar(Destination::Stdout));
    }

    #[test]
    fn types_and_destinations() {
        let file = Destination::File("a.tar".into());
        assert_eq!(
            output("type=oci,dest=a.tar"),
            Output::Images(Layout::Oci, file.clone())
        );
        assert_eq!(
            output("type=docker,dest=a.tar"),
            Output::Images(Layout::Docker, file.clone())
        );
        assert_eq!(output("type=tar,dest=a.tar"), Output::Tar(file));
        assert_eq!(output("type=tar"), Output::Tar(Destination::Stdout));
        assert_eq!(
            output("type=oci,tar=false,dest=d"),
            Output::Images(Layout::Oci, Destination::Directory("d".into()))
        );
        assert_eq!(output("dest=d,type=local"), Output::Local("d".into()));
        assert_eq!(output("type=image"), Output::Image);
        assert_eq!(output("type=docker"), Output::Image);
    }

    #[test]
    fn an_image_is_pushed_where_that_is_said() {
        let push = |text| parse_output(text).unwrap().push;
        assert!(push("type=registry") && push("type=image,name=a,push=true"));
        assert!(!push("type=image") && !push("type=registry,push=false") && !push("out"));
    }

    #[test]
    fn fields_are_those_of_csv() {
        let spec = parse_output(r#"type=oci,"dest=a,b.tar","name=x,y:1""#).unwrap();
        let file = Destination::File("a,b.tar".into());
        assert_eq!(spec.output, Output::Images(Layout::Oci, file));
        let names: Vec<_> = spec.names.iter().map(Reference::familiar).collect();
        assert_eq!(names, ["x:latest", "y:1"]);
        assert_eq!(
            output(r#"type=local,"dest=a""b""#),
            Output::Local("a\"b".into())
        );
        for bad in [
            r#"type=oci,"dest=a"#,
            r#"type=oci,dest="a""#,
            r#""type=oci"x"#,
        ] {
            assert!(parse_output(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_hint() {
        for (bad, reason) in [
            ("", "empty"),
            ("type=oc,dest=a", "unknown type"),
            ("type=oci,dst=a", "unknown attribute"),
            ("dest=a,name=b", "type is missing"),
            ("type=oci,a", "no key=value"),
            ("type=local", "directory"),
            ("type=oci,tar=false", "directory"),
            ("type=oci,tar=maybe,dest=a", "neither true nor false"),
            ("type=local,tar=true,dest=a", "tar is for"),
            ("type=image,push=maybe", "neither true nor false"),
            ("type=oci,push=true", "push is for"),
            ("type=registry,dest=a", "goes to the store"),
            ("type=oci,dest=", "dest is empty"),
            ("type=oci,dest=a,name=B", "invalid image reference"),
            ("type=oci,dest=a,compression=lz4", "unknown compression"),
            ("type=image,compression-level=x", "no number"),
            ("type=image,compression-level=10", "no compression level 10"),
            ("type=tar,compression=zstd", "no layers to compress"),
        ] {
            let error = parse_output(bad).unwrap_err();
            assert!(error.to_string().contains(reason), "{bad}: {error}");
            assert!(error.hint().is_some(), "{bad}");
        }
        let hint = parse_output("type=oc,dest=a").unwrap_err().hint();
        assert_eq!(hint.as_deref(), Some("did you mean oci?"));
    }
}
