package wine

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
)

// records is the folder where runs leave what they did, of one kind: "calls" or "coverage" in the one that HYPERKEEP_RECORDS names, which both are there.
// "" where nobody wants to know.
func records(kind string) string {
	all := os.Getenv("HYPERKEEP_RECORDS")
	if all == "" {
		return ""
	}
	return filepath.Join(all, kind)
}

// keepCalls keeps which calls an emulated host got (emulator.UsageCounts), if somebody wants to know.
func keepCalls(counts any) error {
	folder := records("calls")
	if folder == "" {
		return nil
	}
	text, err := json.Marshal(counts)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(folder, "*.json")
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Close())
}

// counting are the flags of go build with which a program notes what of the agent it executes, in the folder that the machine names, if somebody wants to
// know.
func counting() []string {
	if records("coverage") == "" {
		return nil
	}
	const module = "github.com/hyperkeep/hyperkeep"
	return []string{"-cover", "-coverpkg=" + module + "/agent/...," + module + "/cmd/agent"}
}
