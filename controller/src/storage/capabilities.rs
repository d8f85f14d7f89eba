//! What a probe finds out about a store, and what is relied upon until then.

/// What a store was seen to do. The default relies on nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// It takes CRC64NVME checksums and refuses what does not match. Then parts are sent by that
    /// and their payload is not signed, which costs a third of the CPU.
    pub crc64nvme: bool,
    /// Unfinished uploads can be listed. If not, what a crash leaves between opening an upload and
    /// recording its id only a lifecycle rule of the bucket removes.
    pub list_uploads: bool,
}
