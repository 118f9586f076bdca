// Use the client that openapi-generator makes for Go: go run . URL.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"example.com/calls/client"
)

const data = "SGVsbG8gdG9rZW4h"

func must[T any](value T, _ *http.Response, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	ctx := context.Background()
	configuration := client.NewConfiguration()
	configuration.Servers = client.ServerConfigurations{{URL: os.Args[1]}}
	api := client.NewAPIClient(configuration)

	wanted := client.NewCreateKeyRequest("EC")
	wanted.SetCrv("P-256")
	wanted.SetAlg("ES256")
	pair := must(api.KeysAPI.CreateKey(ctx).CreateKeyRequest(*wanted).Execute())
	toSign := client.NewSignRequest(data)
	toSign.SetKid(pair.GetKid())
	toSign.SetAlg(pair.GetAlg())
	signed := must(api.SigningAPI.Sign(ctx).SignRequest(*toSign).Execute())
	toVerify := client.NewVerifyRequest()
	toVerify.SetProtected(signed.GetProtected())
	toVerify.SetData(data)
	toVerify.SetSignature(signed.GetSignature())
	verified := must(api.SigningAPI.Verify(ctx).VerifyRequest(*toVerify).Execute())

	wanted = client.NewCreateKeyRequest("oct")
	wanted.SetAlg("A256GCM")
	secret := must(api.KeysAPI.CreateKey(ctx).CreateKeyRequest(*wanted).Execute())
	toEncrypt := client.NewEncryptRequest(data, secret.GetAlg())
	toEncrypt.SetKid(secret.GetKid())
	toEncrypt.SetAlg("dir")
	encrypted := must(api.EncryptionAPI.Encrypt(ctx).EncryptRequest(*toEncrypt).Execute())
	toDecrypt := client.NewDecryptRequest()
	toDecrypt.SetProtected(encrypted.GetProtected())
	toDecrypt.SetEncryptedKey(encrypted.GetEncryptedKey())
	toDecrypt.SetIv(encrypted.GetIv())
	toDecrypt.SetCiphertext(encrypted.GetCiphertext())
	toDecrypt.SetTag(encrypted.GetTag())
	decrypted := must(api.EncryptionAPI.Decrypt(ctx).DecryptRequest(*toDecrypt).Execute())

	for _, kid := range []string{pair.GetKid(), secret.GetKid()} {
		if _, err := api.KeysAPI.DestroyKey(ctx, kid).Execute(); err != nil {
			panic(err)
		}
	}
	_, _, err := api.KeysAPI.GetKey(ctx, pair.GetKid()).Execute()
	gone := err.(*client.GenericOpenAPIError).Model().(client.ApiError)
	if verified.Valid && decrypted.Data == data && gone.Error == "not_found" {
		fmt.Println("all is well")
	}
}
