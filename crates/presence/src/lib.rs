//! Whether a person is using this machine; one file a platform.
