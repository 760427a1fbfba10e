//! GPU and machine sensors; one file a vendor, no network.
