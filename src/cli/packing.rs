//! How layers are compressed on their way out: flags that several commands have.

use crate::layer::CompressorError;
use crate::transfer::Packing;

/// The flags.
#[derive(clap::Args)]
pub(super) struct PackingFlags {
    /// What layers that did not come compressed are compressed with: gzip, zstd, none
    #[arg(long, alias = "compression-format", value_name = "FORMAT")]
    compression: Option<String>,
    /// How thoroughly: 0 to 9 for gzip (6), 1 to 22 for zstd (3)
    #[arg(long, value_name = "LEVEL")]
    compression_level: Option<i64>,
    /// Compress layers anew that came in another format
    #[arg(long)]
    force_compression: bool,
}

/// The flags of copies, which leave layers as they are unless they are told to.
#[derive(clap::Args)]
pub(super) struct RepackingFlags {
    /// Compress layers anew that are in another format: gzip, zstd, none
    #[arg(long, aliases = ["dest-compress-format", "compression-format"], value_name = "FORMAT")]
    compression: Option<String>,
    /// How thoroughly: 0 to 9 for gzip (6), 1 to 22 for zstd (3)
    #[arg(
        long,
        alias = "dest-compress-level",
        value_name = "LEVEL",
        requires = "compression"
    )]
    compression_level: Option<i64>,
}

impl RepackingFlags {
    /// Returns what they ask for; of the store, layers leave as that at once.
    pub(super) fn packing(&self) -> Result<Packing, CompressorError> {
        match self.compression.as_deref() {
            None => Ok(Packing::default()),
            format => Packing::new(format, self.compression_level, true),
        }
    }
}

impl PackingFlags {
    /// Returns what they ask for.
    pub(super) fn packing(&self) -> Result<Packing, CompressorError> {
        let format = self.compression.as_deref();
        Packing::new(format, self.compression_level, self.force_compression)
    }
}
