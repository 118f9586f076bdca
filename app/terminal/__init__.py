"""What commands print, ask and fail with, be they beside the service or at one."""
