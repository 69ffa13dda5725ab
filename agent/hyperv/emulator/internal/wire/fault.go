package wire

// Fault makes the next calls of a method fail.
type Fault struct {
	// Method is the name of a WMI method, such as "CreateSnapshot", of a function of virtdisk.dll, such as "AttachVirtualDisk", or of one of VSS or a step of its
	// writer, such as "DoSnapshotSet" or "HyperVWriter.Freeze".
	Method string `json:"method"`
	// ReturnValue refuses the call itself; of a virtdisk function it is the Win32 error, of one of VSS the HRESULT. With zero the call is accepted, and its job fails with JobError.
	ReturnValue uint32 `json:"returnValue,omitempty"`
	// JobError is the error code of the job, such as 32775, and Message what GetErrorEx says.
	JobError int64  `json:"jobError,omitempty"`
	Message  string `json:"message,omitempty"`
	// Hang lets the job run until it is terminated, with Stubborn until the jobs are released. It needs no JobError.
	Hang     bool `json:"hang,omitempty"`
	Stubborn bool `json:"stubborn,omitempty"`
	// Times is how many calls fail; zero means one.
	Times int `json:"times,omitempty"`
}

// Trouble is something that is wrong with a VM until it is switched off.
type Trouble struct {
	// Machine is the VM's name, folder or id.
	Machine string `json:"machine"`
	// Name is one of vm.yaml's troubles.
	Name string `json:"name"`
	On   bool   `json:"on"`
}

// Happening is something that happens once.
type Happening struct {
	// What happens, such as "storageMigrated".
	What string `json:"what"`
	// Machine is the VM's name, folder or id.
	Machine string `json:"machine"`
	// Path is the Windows path of the disk that it is about, if it is about one, and To where that goes.
	Path string `json:"path,omitempty"`
	To   string `json:"to,omitempty"`
	// SizeBytes is the disk's size afterwards, of "diskResized".
	SizeBytes int64 `json:"sizeBytes,omitempty"`
}
