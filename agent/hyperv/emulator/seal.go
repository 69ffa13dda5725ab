package emulator

import (
	"os"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// fileStamp is what a file looks like from outside.
type fileStamp struct {
	bytes    int64
	modified time.Time
}

func (m *member) stat() (fileStamp, error) {
	info, err := m.file.(interface{ Stat() (os.FileInfo, error) }).Stat()
	if err != nil {
		return fileStamp{}, err
	}
	return fileStamp{info.Size(), info.ModTime().UTC()}, nil
}

// matches says whether nobody else wrote the file since it was sealed.
func (s seal) matches(info vhdx.Info, stat fileStamp) bool {
	if s.Bytes != 0 && (s.Bytes != stat.bytes || !s.Modified.Equal(stat.modified)) {
		return false
	}
	return s.DataWriteID == info.DataWriteID || s.FileWriteID == info.FileWriteID
}
