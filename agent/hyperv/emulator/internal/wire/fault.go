package wire

// Fault makes the next calls of a method fail.
type Fault struct {
	// Method is the name of a WMI method, such as "CreateSnapshot", or of a function of virtdisk.dll, such as "AttachVirtualDisk".
	Method string `json:"method"`
	// ReturnValue refuses the call itself; of a virtdisk function it is the Win32 error. With zero the call is accepted, and its job fails with JobError.
	ReturnValue uint32 `json:"returnValue,omitempty"`
	// JobError is the error code of the job, such as 32775, and Message what GetErrorEx says.
	JobError int64  `json:"jobError,omitempty"`
	Message  string `json:"message,omitempty"`
	// Times is how many calls fail; zero means one.
	Times int `json:"times,omitempty"`
}
