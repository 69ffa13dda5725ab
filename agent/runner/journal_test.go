package runner

import (
	"os"
	"path/filepath"
	"testing"
)

func TestJournal(t *testing.T) {
	dir := t.TempDir()
	journal, err := OpenJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	entry := Entry{Tag: "a", VirtualMachineID: "vm"}
	if err := journal.Put(entry); err != nil {
		t.Fatal(err)
	}
	// What a crash or another program leaves in the folder must not stop the agent.
	for name, content := range map[string]string{"torn" + entrySuffix: `{"tag":`, "foreign" + entrySuffix: `{"tag":"x"}`, ".writing-1": "{}", "notes.txt": "hello"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := journal.List()
	if err != nil || len(entries) != 1 || entries[0].VirtualMachineID != "vm" {
		t.Errorf("lists %v, %v", entries, err)
	}
	for range 2 {
		if err := journal.Delete("a"); err != nil {
			t.Error(err)
		}
	}
	if _, found, err := journal.Get("a"); found || err != nil {
		t.Errorf("found %v, %v", found, err)
	}
}
