//! Tollgate's nginx module: a thin shell over the crates.
//!
//! | folder | what it is |
//! | --- | --- |
//! | `ngx` | the only place that touches raw nginx: hooks, filters, balancer, variables |
//! | `gate` | what happens to a request, in terms of snapshot, region and meter |

mod gate;

mod ngx;
