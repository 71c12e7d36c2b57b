//! How clients speak to the gateway. Both edges build the one internal request
//! and read the one internal event; nothing imports them but `app`.

pub mod grpc;
pub mod http;
mod limits;
mod linger;
mod refusal;
pub mod server;
mod trace;
pub mod worker;
