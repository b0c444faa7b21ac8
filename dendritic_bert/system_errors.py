"""Groups of errors that operating systems report for one and the same thing."""

import errno

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# A file system without locks, as some network and user-space ones are. That another process has the lock is
# BlockingIOError instead, and any other error is one.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
