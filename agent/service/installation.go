package service

import "io"

// Installation says how a service is installed or removed.
type Installation struct {
	// Folder of the settings and everything else, see Folder.
	Folder string
	// Start the service once it is installed.
	Start bool
	// Purge removes also the settings, the token, the logs and the journal.
	Purge bool
	// Out is told what was done, in lines for people.
	Out io.Writer
}
