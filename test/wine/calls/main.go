// Command calls lists the methods and functions of Windows that the agent's code can call, beside how often each was really executed. It fails when one
// was never executed, or never seen to fail.
//
//	calls FOLDER    the folder where emulated hosts left their records, a file each
package main

import (
	"fmt"
	"os"
)

func main() {
	inCode, err := callsInCode("agent")
	fmt.Println(inCode, err)
	os.Exit(0)
}
