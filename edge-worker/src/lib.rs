//! The regional first hop as a Cloudflare Worker.
