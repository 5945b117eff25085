"""The data plane's own HTTP/1.1: connections, pools, deadlines, request retry."""
