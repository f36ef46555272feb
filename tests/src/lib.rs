//! What the end-to-end tests are made of: a mock model endpoint, real nginx and daemon processes, clients and loads.

pub mod access;
pub mod cluster;
pub mod daemon;
pub mod dns;
pub mod documents;
pub mod fault;
pub mod gateway;
pub mod haproxy;
pub mod http;
pub mod identity;
pub mod instance;
pub mod load;
pub mod mock;
pub mod nacos;
pub mod nginx;
pub mod port;
pub mod process;
pub mod programs;
pub mod raw;
pub mod receiver;
pub mod redis;
pub mod site;
pub mod sse;
pub mod tls;
pub mod wait;
