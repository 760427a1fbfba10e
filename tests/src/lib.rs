//! Whole-system tests on real processes.
