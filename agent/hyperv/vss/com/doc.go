// Package com is vss.Service over Windows' vssapi.dll, for a process that does nothing else: it needs COM security of its own, and its shadow copies end with
// it. Package child makes such processes. It converts and calls; what the calls mean is known elsewhere.
//
// The interfaces are C++ classes without a type library, so methods are called by their slot in the vtable (vsbackup.h). Structures are laid out, and GUIDs
// passed by value, as the 64-bit calling conventions have it: a requester must be a native process anyway.
package com
