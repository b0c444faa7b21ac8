"""Groups of errors that operating systems report for one and the same thing."""

import errno

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
