//! What the end-to-end tests are made of: a mock model endpoint, real nginx and daemon processes, clients and loads.

pub mod mock;
