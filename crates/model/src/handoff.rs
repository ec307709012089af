//! Makes a transcript valid for the next model.
